//! Counts of wrong keys per network and of requests per caller.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZero,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _, clock::DefaultClock};
use parking_lot::Mutex;
use quick_cache::{sync, unsync};

use super::Grant;

/// Window in which wrong keys are counted, and length of a lockout from its start.
const LOCKOUT_WINDOW: Duration = Duration::from_secs(60);
/// Networks and callers that are tracked. Beyond that the least used are dropped, so that memory is bounded.
const NETWORKS_MAX: usize = 100_000;

/// The origin of requests: an IPv4 address, or the /64 prefix that one IPv6 customer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    bits: u128,
    /// Whether `bits` is a proxy, and this the network of all its clients whose addresses are unknown.
    is_behind_proxy: bool,
}

impl Network {
    /// The clients of `proxy` whose addresses cannot be determined. They share limits with each other, but neither with
    /// the proxy itself nor with its other clients.
    pub fn unknown_behind(proxy: IpAddr) -> Network {
        Network { is_behind_proxy: true, ..Network::from(proxy) }
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Network {
        let bits = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => address.to_bits(),
            IpAddr::V6(address) => address.to_bits() & !u128::from(u64::MAX),
        };
        Network { bits, is_behind_proxy: false }
    }
}

impl Default for Network {
    /// Loopback, for requests made within the process.
    fn default() -> Network {
        IpAddr::from(Ipv6Addr::LOCALHOST).into()
    }
}

/// Whose requests and responses are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerId {
    /// The digest of a key, which stays valid when the keys are reloaded.
    Key([u8; 32]),
    /// Callers without a valid key.
    Network(Network),
}

impl CallerId {
    /// The caller with `grant`, or without a valid key, from `network`; `None` is a caller within the process.
    pub fn new(grant: Option<&Grant>, network: Option<Network>) -> CallerId {
        match grant.and_then(|grant| grant.key) {
            Some(digest) => CallerId::Key(digest),
            None => CallerId::Network(network.unwrap_or_default()),
        }
    }
}

/// Counters of wrong keys and of requests.
pub(super) struct Limits {
    wrong_keys_max: u32,
    wrong_keys: Mutex<unsync::Cache<Network, WrongKeys>>,
    requests: Option<RequestLimiter>,
}

#[derive(Clone, Copy, Debug)]
struct WrongKeys {
    since: Instant,
    count: u32,
}

struct RequestLimiter {
    quota: Quota,
    clock: DefaultClock,
    callers: sync::Cache<CallerId, Arc<DefaultDirectRateLimiter>>,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

impl Limits {
    /// Allows `wrong_keys_max` wrong keys per minute and network, and `rate_limit` requests per second and caller; 0 is
    /// unlimited.
    pub(super) fn new(wrong_keys_max: u32, rate_limit: u32) -> Limits {
        let requests = NonZero::new(rate_limit).map(|limit| RequestLimiter {
            quota: Quota::per_second(limit),
            clock: DefaultClock::default(),
            callers: sync::Cache::new(NETWORKS_MAX),
        });
        Limits { wrong_keys_max, wrong_keys: Mutex::new(unsync::Cache::new(NETWORKS_MAX)), requests }
    }

    /// How much longer keys from `network` are not checked; `None` if they are.
    pub(super) fn lockout(&self, network: Network) -> Option<Duration> {
        let counted = *self.wrong_keys.lock().get(&network)?;
        let left = LOCKOUT_WINDOW.saturating_sub(counted.since.elapsed());
        (counted.count >= self.wrong_keys_max && !left.is_zero()).then_some(left)
    }

    /// Counts a wrong key.
    pub(super) fn record_wrong_key(&self, network: Network) {
        let mut wrong_keys = self.wrong_keys.lock();
        let now = Instant::now();
        let before =
            wrong_keys.get(&network).copied().filter(|counted| counted.since.elapsed() < LOCKOUT_WINDOW);
        let before = before.unwrap_or(WrongKeys { since: now, count: 0 });
        wrong_keys.insert(network, WrongKeys { count: before.count + 1, ..before });
    }

    /// Counts a request. If it exceeds the limit, returns how long to wait.
    pub(super) fn check_rate(&self, caller: CallerId) -> Option<Duration> {
        let RequestLimiter { quota, clock, callers } = self.requests.as_ref()?;
        let new_limiter = || Ok::<_, std::convert::Infallible>(Arc::new(RateLimiter::direct(*quota)));
        let Ok(limiter) = callers.get_or_insert_with(&caller, new_limiter);
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
    fn ten_wrong_keys_lock_out_their_network_only() {
        let limits = Limits::new(10, 0);
        for _ in 0..10 {
            assert_eq!(limits.lockout(network(1)), None);
            limits.record_wrong_key(network(1));
        }
        assert!(limits.lockout(network(1)).is_some_and(|left| left <= LOCKOUT_WINDOW));
        assert_eq!(limits.lockout(network(2)), None);
    }

    #[test]
    fn addresses_of_one_ipv6_prefix_are_one_network() {
        let of = |text: &str| Network::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.2"), of("10.0.0.1"));
    }

    #[test]
    fn memory_is_bounded_for_a_million_networks() {
        let limits = Limits::new(10, 5);
        for number in 0..1_000_000 {
            limits.record_wrong_key(network(number));
            limits.check_rate(CallerId::Network(network(number)));
        }
        // The caches are bounded by the number of their entries.
        assert!(limits.wrong_keys.lock().len() <= NETWORKS_MAX);
        assert!(limits.requests.as_ref().unwrap().callers.len() <= NETWORKS_MAX);
    }

    #[test]
    fn requests_are_limited_per_caller() {
        let limits = Limits::new(10, 3);
        let (one, other) = (CallerId::Key([0; 32]), CallerId::Key([1; 32]));
        let rejected = (0..10).filter(|_| limits.check_rate(one).is_some()).count();
        assert!((5..=7).contains(&rejected), "{rejected} of ten simultaneous requests");
        assert_eq!(limits.check_rate(other), None);
        assert_eq!(Limits::new(10, 0).check_rate(one), None);
    }
}
