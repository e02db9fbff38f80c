//! Which collections there are, and which names lead to them.

use std::{collections::BTreeMap, sync::Arc};

use crate::collection::Collection;

/// All collections at one moment. Replaced as a whole when one comes or goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    pub(crate) named: BTreeMap<String, Versions>,
    /// Name of the collection each alias leads to.
    pub(crate) aliases: BTreeMap<String, String>,
    /// Collections that are being filled and do not answer yet.
    pub(crate) building: Vec<Arc<Collection>>,
}

/// The versions of one collection.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    pub(crate) active: Arc<Collection>,
    pub(crate) rebuilding: Option<Arc<Collection>>,
}

impl Versions {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Collection>> {
        std::iter::once(&self.active).chain(&self.rebuilding)
    }
}

/// What a collection is to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Searches ask it: what does not fit its schema is refused.
    Active,
    /// It is being made: what does not fit is counted, as among the documents that stood before.
    Building,
}

impl Registry {
    /// Every collection that writes feed.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Collection>> {
        self.named.values().flat_map(Versions::all).chain(&self.building)
    }

    /// Every collection that writes feed, and what it is to them.
    pub(crate) fn with_roles(&self) -> impl Iterator<Item = (&Arc<Collection>, Role)> {
        let named = self.named.values().flat_map(|versions| {
            let rebuilding = versions.rebuilding.iter().map(|collection| (collection, Role::Building));
            std::iter::once((&versions.active, Role::Active)).chain(rebuilding)
        });
        named.chain(self.building.iter().map(|collection| (collection, Role::Building)))
    }

    /// The collection's own name and versions, by name or alias.
    pub(crate) fn resolve(&self, name: &str) -> Option<(&str, &Versions)> {
        let name = self.aliases.get(name).map_or(name, String::as_str);
        self.named.get_key_value(name).map(|(name, versions)| (name.as_str(), versions))
    }

    /// Aliases that lead to the collection called `name`.
    pub(crate) fn aliases_of(&self, name: &str) -> Vec<String> {
        let aliases = self.aliases.iter().filter(|(_, target)| *target == name);
        aliases.map(|(alias, _)| alias.clone()).collect()
    }

    /// The names of all collections, for messages.
    pub(crate) fn collection_names(&self) -> String {
        if self.named.is_empty() {
            return "none".to_owned();
        }
        self.named.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}
