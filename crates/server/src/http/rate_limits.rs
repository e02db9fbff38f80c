//! How often: wrong keys from one network, and requests of one caller.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZero,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _, clock::DefaultClock};
use parking_lot::Mutex;
use quick_cache::{sync, unsync};

/// What wrong keys are counted in.
const PERIOD: Duration = Duration::from_secs(60);
/// Networks that are remembered; others are forgotten for new ones, so that memory is bounded.
const NETWORKS_MAX: usize = 100_000;

/// Where requests come from: an IPv4 address, or the /64 that one IPv6 customer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Network(u128);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Network {
        let v6 = match address {
            IpAddr::V4(address) => return Network(address.to_ipv6_mapped().to_bits()),
            IpAddr::V6(address) => address,
        };
        match v6.to_ipv4_mapped() {
            Some(_) => Network(v6.to_bits()),
            None => Network(v6.to_bits() & !u128::from(u64::MAX)),
        }
    }
}

impl Default for Network {
    fn default() -> Network {
        Network(Ipv6Addr::LOCALHOST.to_bits())
    }
}

/// Who is counted: a key by its digest, since a table of keys that is read again may have another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    Key([u8; 32]),
    Network(Network),
}

/// Counts.
pub(super) struct RateLimits {
    wrong_keys_max: u32,
    wrong_keys: Mutex<unsync::Cache<Network, WrongKeys>>,
    requests: Option<Requests>,
}

#[derive(Clone, Copy, Debug)]
struct WrongKeys {
    since: Instant,
    count: u32,
}

struct Requests {
    quota: Quota,
    clock: DefaultClock,
    callers: sync::Cache<Counted, Arc<DefaultDirectRateLimiter>>,
}

impl std::fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimits").finish_non_exhaustive()
    }
}

impl RateLimits {
    /// At most `wrong_keys_max` wrong keys a minute of each network, and `rate_limit` requests a second of each
    /// caller; no limit, if 0.
    pub(super) fn new(wrong_keys_max: u32, rate_limit: u32) -> RateLimits {
        let requests = NonZero::new(rate_limit).map(|limit| Requests {
            quota: Quota::per_second(limit),
            clock: DefaultClock::default(),
            callers: sync::Cache::new(NETWORKS_MAX),
        });
        RateLimits { wrong_keys_max, wrong_keys: Mutex::new(unsync::Cache::new(NETWORKS_MAX)), requests }
    }

    /// How long no key of this network is looked at any more, if that is so.
    pub(super) fn locked_out(&self, network: Network) -> Option<Duration> {
        let counted = *self.wrong_keys.lock().get(&network)?;
        let left = PERIOD.saturating_sub(counted.since.elapsed());
        (counted.count >= self.wrong_keys_max && !left.is_zero()).then_some(left)
    }

    /// Counts a wrong key.
    pub(super) fn record_wrong_key(&self, network: Network) {
        let mut wrong_keys = self.wrong_keys.lock();
        let now = Instant::now();
        let before = wrong_keys.get(&network).copied().filter(|counted| counted.since.elapsed() < PERIOD);
        let before = before.unwrap_or(WrongKeys { since: now, count: 0 });
        wrong_keys.insert(network, WrongKeys { count: before.count + 1, ..before });
    }

    /// Counts a request; how long to wait if it is one too many.
    pub(super) fn request(&self, caller: Counted) -> Option<Duration> {
        let Requests { quota, clock, callers } = self.requests.as_ref()?;
        let made = || Ok::<_, std::convert::Infallible>(Arc::new(RateLimiter::direct(*quota)));
        let Ok(limiter) = callers.get_or_insert_with(&caller, made);
        limiter.check().err().map(|until| until.wait_time_from(clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> Network {
        IpAddr::from(number.to_be_bytes()).into()
    }

    #[test]
    fn the_tenth_wrong_key_bars_a_network_and_no_other() {
        let limits = RateLimits::new(10, 0);
        for _ in 0..10 {
            assert_eq!(limits.locked_out(network(1)), None);
            limits.record_wrong_key(network(1));
        }
        assert!(limits.locked_out(network(1)).is_some_and(|left| left <= PERIOD));
        assert_eq!(limits.locked_out(network(2)), None);
    }

    #[test]
    fn an_ipv6_customer_is_one_network() {
        let of = |text: &str| Network::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.2"), of("10.0.0.1"));
    }

    #[test]
    fn a_million_networks_take_bounded_memory() {
        let limits = RateLimits::new(10, 5);
        for number in 0..1_000_000 {
            limits.record_wrong_key(network(number));
            limits.request(Counted::Network(network(number)));
        }
        // What a cache of so many entries takes is bounded by their number.
        assert!(limits.wrong_keys.lock().len() <= NETWORKS_MAX);
        assert!(limits.requests.as_ref().unwrap().callers.len() <= NETWORKS_MAX);
    }

    #[test]
    fn requests_are_limited_by_caller() {
        let limits = RateLimits::new(10, 3);
        let (one, other) = (Counted::Key([0; 32]), Counted::Key([1; 32]));
        let refused = (0..10).filter(|_| limits.request(one).is_some()).count();
        assert!((5..=7).contains(&refused), "{refused} of ten at once");
        assert_eq!(limits.request(other), None);
        assert_eq!(RateLimits::new(10, 0).request(one), None);
    }
}
