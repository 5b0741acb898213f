//! A pod's metadata, of which no more is ever in memory than is kept. `managedFields`, the larger part of most objects, is not
//! decoded, and neither are labels and annotations beyond what is kept.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::Owner;
use crate::respond::Policy;

/// Annotations that are memguard's.
const OWN: &str = "memguard.dev/";
/// The hash of a static pod's manifest. It is the uid by which the kubelet calls the pod, and so its cgroup.
pub(super) const CONFIG_HASH: &str = "kubernetes.io/config.hash";
pub(super) const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels and annotations that are kept of a pod, and bytes of one. memguard's memory is locked, and an object may have
/// a megabyte of them.
pub(super) const KEPT: usize = 64;
const KEPT_BYTES: usize = 1024;
/// Characters of what a pod says of its mode. It is kept in any case, because it makes the policy milder.
const KEPT_OF_MODE: usize = 32;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) uid: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) resource_version: String,
    pub(super) deletion_timestamp: Option<IgnoredAny>,
    pub(super) labels: Labels,
    pub(super) annotations: Annotations,
    pub(super) owner_references: Owners,
}

/// The first of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(pub(super) BTreeMap<String, String>);

/// Those that memguard looks at.
#[derive(Clone, Debug, Default)]
pub(super) struct Annotations {
    pub(super) own: BTreeMap<String, String>,
    pub(super) config_hash: Option<String>,
    config_mirror: Option<String>,
}

impl Annotations {
    pub(super) fn static_pod(&mut self) -> Option<String> {
        self.config_hash.take().or_else(|| self.config_mirror.take())
    }
}

/// The controller among the owners if there is one, else the first of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Owners(pub(super) Option<Owner>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kept;

        impl<'de> Visitor<'de> for Kept {
            type Value = Labels;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("labels")
            }

            fn visit_unit<E>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = Labels::default();
                while let Some(name) = map.next_key::<String>()? {
                    if labels.0.len() < KEPT {
                        labels.0.extend(short(name, map.next_value()?));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(labels)
            }
        }

        deserializer.deserialize_any(Kept)
    }
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kept;

        impl<'de> Visitor<'de> for Kept {
            type Value = Annotations;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("annotations")
            }

            fn visit_unit<E>(self) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut annotations = Annotations::default();
                let mut mode = None;
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        Policy::ANNOTATION => {
                            mode = Some(map.next_value::<String>()?.chars().take(KEPT_OF_MODE).collect());
                        }
                        CONFIG_HASH => annotations.config_hash = short(name, map.next_value()?).map(|(_, hash)| hash),
                        CONFIG_MIRROR => {
                            annotations.config_mirror = short(name, map.next_value()?).map(|(_, hash)| hash);
                        }
                        own if own.starts_with(OWN) && annotations.own.len() < KEPT => {
                            annotations.own.extend(short(name, map.next_value()?));
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                annotations.own.extend(mode.map(|mode| (Policy::ANNOTATION.to_owned(), mode)));
                Ok(annotations)
            }
        }

        deserializer.deserialize_any(Kept)
    }
}

impl<'de> Deserialize<'de> for Owners {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;

        impl<'de> Visitor<'de> for One {
            type Value = Owners;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("owner references")
            }

            fn visit_unit<E>(self) -> Result<Owners, E> {
                Ok(Owners::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut owners: A) -> Result<Owners, A::Error> {
                let mut one: Option<Owner> = None;
                while let Some(owner) = owners.next_element::<Owner>()? {
                    if one.as_ref().is_none_or(|one| owner.controller && !one.controller) {
                        one = Some(owner);
                    }
                }
                Ok(Owners(one))
            }
        }

        deserializer.deserialize_any(One)
    }
}

/// Neither is longer than any that the API or memguard knows.
fn short(name: String, value: String) -> Option<(String, String)> {
    (name.len() <= KEPT_BYTES && value.len() <= KEPT_BYTES).then_some((name, value))
}
