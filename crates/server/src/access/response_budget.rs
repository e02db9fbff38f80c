//! Memory for responses that clients have not read yet.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::CallerId;

/// The memory that all responses in flight may hold together, shared fairly between callers.
///
/// A caller may hold as much as is free (dynamic thresholds: Choudhury and Hahne, "Dynamic queue length thresholds for
/// shared-memory packet switches", 1998). One caller alone gets half of the budget, n callers get 1/(n+1) each, and as
/// much stays free for a caller that comes later.
#[derive(Debug)]
pub struct ResponseBudget {
    bytes_max: usize,
    usage: Mutex<Usage>,
}

#[derive(Debug, Default)]
struct Usage {
    total: usize,
    by_caller: HashMap<CallerId, usize>,
}

impl Default for ResponseBudget {
    fn default() -> ResponseBudget {
        ResponseBudget::new(256 << 20)
    }
}

impl ResponseBudget {
    /// A budget of `bytes_max`.
    pub fn new(bytes_max: usize) -> ResponseBudget {
        ResponseBudget { bytes_max, usage: Mutex::default() }
    }

    /// Its size in bytes.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Bytes that are reserved.
    pub fn reserved(&self) -> usize {
        self.usage.lock().total
    }

    /// Reserves `bytes` for a response to `caller`; `None` if they exceed what is free, or the caller's share of it.
    pub fn reserve(self: &Arc<Self>, caller: CallerId, bytes: usize) -> Option<Reservation> {
        self.take(caller, bytes).then(|| Reservation { budget: Arc::clone(self), caller, bytes })
    }

    /// Whether [`ResponseBudget::reserve`] would succeed now.
    pub fn has_room(&self, caller: CallerId, bytes: usize) -> bool {
        self.usage.lock().has_room(self.bytes_max, caller, bytes)
    }

    fn take(&self, caller: CallerId, bytes: usize) -> bool {
        let mut usage = self.usage.lock();
        if !usage.has_room(self.bytes_max, caller, bytes) {
            return false;
        }
        usage.total += bytes;
        *usage.by_caller.entry(caller).or_default() += bytes;
        true
    }

    fn give_back(&self, caller: CallerId, bytes: usize) {
        let mut usage = self.usage.lock();
        usage.total -= bytes;
        let held = usage.by_caller.get_mut(&caller).expect("a reservation is counted until it is given back");
        *held -= bytes;
        if *held == 0 {
            usage.by_caller.remove(&caller);
        }
    }
}

impl Usage {
    fn has_room(&self, bytes_max: usize, caller: CallerId, bytes: usize) -> bool {
        let free = bytes_max.saturating_sub(self.total);
        let held = self.by_caller.get(&caller).copied().unwrap_or(0);
        // A caller's only response may take all that is free; otherwise one of more than half would never be sent.
        bytes <= free && (held == 0 || held.saturating_add(bytes) <= free)
    }
}

/// Bytes of a [`ResponseBudget`], given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<ResponseBudget>,
    caller: CallerId,
    bytes: usize,
}

impl Reservation {
    /// Reserves `bytes` more; `false` if they are not available.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let has_grown = self.budget.take(self.caller, bytes);
        self.bytes += if has_grown { bytes } else { 0 };
        has_grown
    }

    /// Gives `bytes` back, at most all.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.give_back(self.caller, bytes);
    }

    /// Takes `bytes`, at most all, out as a reservation of their own.
    pub fn split(&mut self, bytes: usize) -> Reservation {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Reservation { budget: Arc::clone(&self.budget), caller: self.caller, bytes }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.caller, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(number: u8) -> CallerId {
        CallerId::Key([number; 32])
    }

    #[test]
    fn callers_share_the_budget_fairly() {
        let budget = Arc::new(ResponseBudget::new(1200));
        let fill = |number: u8| {
            let reservations: Vec<_> = std::iter::from_fn(|| budget.reserve(caller(number), 10)).collect();
            (reservations.len() * 10, reservations)
        };
        let (alone, first) = fill(1);
        assert_eq!(alone, 600, "half of the budget");
        let (second, _second) = fill(2);
        assert_eq!(second, 300, "half of what is free");
        let (third, _third) = fill(3);
        assert_eq!(third, 150);
        // Whoever holds more than is free gets nothing until it gives back.
        assert!(!budget.has_room(caller(1), 10) && budget.has_room(caller(4), 10));
        assert!(budget.reserve(caller(1), 10).is_none());
        drop(first);
        assert!(budget.reserve(caller(2), 10).is_some());
        assert!(budget.reserve(caller(1), 10).is_some());
    }

    #[test]
    fn a_single_response_may_take_all_that_is_free() {
        let budget = Arc::new(ResponseBudget::new(1000));
        assert!(budget.reserve(caller(1), 1001).is_none());
        let whole = budget.reserve(caller(1), 1000).unwrap();
        assert!(budget.reserve(caller(2), 1).is_none());
        drop(whole);
        let _most = budget.reserve(caller(1), 900).unwrap();
        assert!(budget.reserve(caller(1), 50).is_none(), "more than is free");
        assert!(budget.reserve(caller(2), 50).is_some());
    }

    #[test]
    fn parts_are_given_back_one_by_one() {
        let budget = Arc::new(ResponseBudget::new(1000));
        let mut reservation = budget.reserve(caller(1), 400).unwrap();
        let part = reservation.split(100);
        reservation.shrink(250);
        assert_eq!(budget.reserved(), 150);
        assert!(reservation.grow(100) && !reservation.grow(800));
        assert_eq!(budget.reserved(), 250);
        drop(reservation);
        assert_eq!(budget.reserved(), 100);
        drop(part);
        assert_eq!(budget.reserved(), 0);
        assert!(budget.usage.lock().by_caller.is_empty());
    }
}
