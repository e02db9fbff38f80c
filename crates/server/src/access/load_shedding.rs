//! Load shedding: searches are rejected before any work is done for them while more wait than can be answered in time.

use std::fmt;

use super::Action;
use service::Service;

/// Decides whether an action is rejected because of overload.
pub struct LoadShedder {
    is_overloaded: Box<dyn Fn() -> bool + Send + Sync>,
}

impl LoadShedder {
    /// Sheds while `service` rejects searches.
    pub fn new(service: Service) -> LoadShedder {
        LoadShedder::with(move || service.rejects_searches())
    }

    /// Sheds while `is_overloaded` returns true.
    pub(crate) fn with(is_overloaded: impl Fn() -> bool + Send + Sync + 'static) -> LoadShedder {
        LoadShedder { is_overloaded: Box::new(is_overloaded) }
    }

    /// Whether `action` is rejected now.
    pub fn sheds(&self, action: Action) -> bool {
        action.is_sheddable() && (self.is_overloaded)()
    }
}

impl fmt::Debug for LoadShedder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LoadShedder").finish_non_exhaustive()
    }
}
