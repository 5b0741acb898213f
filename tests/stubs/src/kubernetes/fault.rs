//! Faults on demand.

use serde::{Deserialize, Serialize};

/// What goes wrong with a request, and with which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Of every method without it.
    #[serde(default)]
    pub method: Option<String>,
    /// A part of the path with its query. Empty for every path.
    #[serde(default)]
    pub path: String,
    /// How often; until faults are set anew without it.
    #[serde(default)]
    pub times: Option<u32>,
    pub what: What,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Nothing is done, and this is the answer.
    Refuse { code: u16, retry_after_s: Option<u32> },
    /// Nothing is done, and no answer ever comes.
    Hang,
    /// Nothing is done, and the connection ends.
    Cut,
    /// What was asked for is done, and the connection ends before the answer.
    LoseAnswer,
    /// What was asked for is done, and half of the answer comes.
    CutAnswer,
    /// An answer that is none of the API's, as proxies give them.
    Garbage,
}

/// Those that are in force.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn set(&mut self, faults: Vec<Fault>) {
        self.0 = faults;
    }

    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// The fault of a request, which is one of its times.
    pub(super) fn take(&mut self, method: &str, path: &str) -> Option<What> {
        let hit = |fault: &Fault| {
            fault.times != Some(0)
                && fault.method.as_deref().is_none_or(|wanted| wanted == method)
                && path.contains(&fault.path)
        };
        let fault = self.0.iter_mut().find(|fault| hit(fault))?;
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        Some(fault.what.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_meets_its_requests_so_often_and_no_others() {
        let mut faults = Faults::default();
        faults.add(Fault {
            method: Some("GET".to_owned()),
            path: "/pods".to_owned(),
            times: Some(1),
            what: What::Hang,
        });
        faults.add(Fault { method: None, path: String::new(), times: None, what: What::Cut });
        assert_eq!(faults.take("GET", "/api/v1/pods"), Some(What::Hang));
        assert_eq!(faults.take("GET", "/api/v1/pods"), Some(What::Cut));
        assert_eq!(faults.take("DELETE", "/api/v1/pods"), Some(What::Cut));
        faults.set(Vec::new());
        assert_eq!(faults.take("GET", "/api/v1/pods"), None);
    }
}
