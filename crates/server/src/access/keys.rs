//! The keys a server accepts: held as digests, compared in constant time.

use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::{AcceptedKey, Grant};

/// The keys a server accepts.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    keys: Vec<AcceptedKey>,
}

impl ApiKeys {
    /// The set of `keys`.
    pub fn new(keys: &[AcceptedKey]) -> ApiKeys {
        ApiKeys { keys: keys.to_vec() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Index of the key that equals `given`. Compares it with all keys, each in constant time, so that the duration
    /// depends neither on the match nor on its position.
    fn position(&self, given: &[u8]) -> Option<usize> {
        let digest: [u8; 32] = Sha256::digest(given).into();
        let mut found = u32::MAX;
        for (number, accepted) in (0..).zip(&self.keys) {
            found.conditional_assign(&number, accepted.digest.ct_eq(&digest));
        }
        usize::try_from(found).ok().filter(|number| *number < self.keys.len())
    }

    /// The grant of the key `given`; `None` if it is unknown.
    pub(super) fn grant(&self, given: &[u8]) -> Option<Grant> {
        let AcceptedKey { digest, role, collections } = &self.keys[self.position(given)?];
        Some(Grant { role: *role, collections: collections.clone(), key: Some(*digest) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{ApiKey, Role};

    fn accepted(key: &str, role: Role) -> AcceptedKey {
        AcceptedKey::new(&ApiKey::new(key).unwrap(), role)
    }

    #[test]
    fn an_empty_set_matches_no_key() {
        assert_eq!(ApiKeys::default().position(b"first-key-of-the-server"), None);
    }

    #[test]
    fn debug_output_reveals_nothing_of_a_key() {
        let shown = format!("{:?}", ApiKeys::new(&[accepted("first-key-of-the-server", Role::Admin)]));
        assert!(!shown.contains("first") && !shown.contains("digest"), "{shown}");
    }

    /// Whether a key that differs in its first byte is rejected sooner than one that differs in its last: Welch's t on
    /// the cropped times of a million calls of each, in random order (Reparaz, Balasch and Verbauwhede 2017, "Dude, is
    /// my code constant time?"). Prints the result without asserting it: |t| above 4.5 indicates a leak, but other load
    /// on the machine can cause it too.
    #[test]
    #[ignore = "a measurement that takes a minute: make long-timing"]
    fn rejection_time_does_not_depend_on_where_a_key_differs() {
        use std::{hint::black_box, time::Instant};
        const KEY: &[u8] = b"a-key-of-the-server-0123456789-ab";
        const SAMPLES: usize = 1_000_000;
        let keys = ApiKeys::new(&[accepted(std::str::from_utf8(KEY).unwrap(), Role::Admin)]);
        let wrong_positions = [0, KEY.len() - 1];
        let mut given = KEY.to_vec();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut times = [Vec::with_capacity(SAMPLES), Vec::with_capacity(SAMPLES)];
        for _ in 0..2 * SAMPLES {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let class = usize::from(random & 1 == 1);
            // Both classes use the same memory, whose location affects the time too.
            given.copy_from_slice(KEY);
            given[wrong_positions[class]] ^= 1;
            let began = Instant::now();
            black_box(keys.position(black_box(&given)));
            times[class].push(began.elapsed().as_nanos() as f64);
        }
        // The slowest tenth was interrupted.
        let mut all: Vec<f64> = times.concat();
        all.sort_unstable_by(f64::total_cmp);
        let most = all[all.len() * 9 / 10];
        let [first, last] = times.map(|times| {
            let times: Vec<f64> = times.into_iter().filter(|time| *time <= most).collect();
            let count = times.len() as f64;
            let mean = times.iter().sum::<f64>() / count;
            let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
            (mean, variance / count)
        });
        let t = (first.0 - last.0) / (first.1 + last.1).sqrt();
        println!("wrong in the first byte {:.1} ns, in the last {:.1} ns, t {t:.2}", first.0, last.0);
    }
}
