//! The collections and their names.

use std::{collections::BTreeMap, sync::Arc};

use crate::collection::Collection;

/// An immutable set of all collections. Every change replaces the whole registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    pub(crate) named: BTreeMap<String, Versions>,
    /// The collection of each alias, by name.
    pub(crate) aliases: BTreeMap<String, String>,
    /// Collections that are being built and are not searchable yet.
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

/// How writes treat a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Searches use it. A write that violates its schema is rejected.
    Active,
    /// It is being built. A write that violates its schema is counted, like an existing document that does.
    Building,
}

impl Registry {
    /// Every collection that receives writes.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Collection>> {
        self.named.values().flat_map(Versions::all).chain(&self.building)
    }

    /// Every collection that receives writes, with its role.
    pub(crate) fn with_roles(&self) -> impl Iterator<Item = (&Arc<Collection>, Role)> {
        let named = self.named.values().flat_map(|versions| {
            let rebuilding = versions.rebuilding.iter().map(|collection| (collection, Role::Building));
            std::iter::once((&versions.active, Role::Active)).chain(rebuilding)
        });
        named.chain(self.building.iter().map(|collection| (collection, Role::Building)))
    }

    /// The name and the versions of a collection, looked up by name or alias.
    pub(crate) fn resolve(&self, name: &str) -> Option<(&str, &Versions)> {
        let name = self.aliases.get(name).map_or(name, String::as_str);
        self.named.get_key_value(name).map(|(name, versions)| (name.as_str(), versions))
    }

    /// Aliases of the collection called `name`.
    pub(crate) fn aliases_of(&self, name: &str) -> Vec<String> {
        let aliases = self.aliases.iter().filter(|(_, target)| *target == name);
        aliases.map(|(alias, _)| alias.clone()).collect()
    }

    /// Names of all collections, for messages.
    pub(crate) fn collection_names(&self) -> String {
        if self.named.is_empty() {
            return "none".to_owned();
        }
        self.named.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}
