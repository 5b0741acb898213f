//! What memguard may do at the Kubernetes API.

use super::{Finding, Grade};
use crate::{
    config::Configuration,
    kubernetes::{Generation, Right},
    telemetry::escaped,
};

/// A finding for each right. Pure. One that is missing is bad only where something that was asked for needs it.
#[must_use]
pub fn cluster(rights: &[Right], configured: &Configuration) -> Vec<Finding> {
    rights.iter().map(|right| finding(right, need(right, configured))).collect()
}

/// Whether memguard will make use of a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Yes,
    /// With the older ARC, and whether that is there is not known.
    Perhaps,
    /// What it is for is switched off.
    No,
}

fn need(right: &Right, configured: &Configuration) -> Need {
    let kubernetes = configured.kubernetes;
    let used = match (right.resource, right.verb) {
        ("events", _) => kubernetes.events,
        (_, "delete") => kubernetes.delete_runner,
        // Which run a runner has, and the uid by which it is deleted and told of.
        (resource, "get") if resource != "secrets" => {
            configured.github.is_some() || kubernetes.delete_runner || kubernetes.events
        }
        _ => true,
    };
    match used {
        false => Need::No,
        true if Generation::Summerwind.resource().ends_with(right.group) && !right.group.is_empty() => Need::Perhaps,
        true => Need::Yes,
    }
}

fn finding(right: &Right, need: Need) -> Finding {
    let group = if right.group.is_empty() { String::new() } else { format!(".{}", right.group) };
    let what = format!("{} {}{group}", right.verb, right.resource);
    let (fact, means, remedy) = match (right.granted, &right.problem) {
        (Some(true), _) => return Finding::good("right", format!("may {what}"), right.needed_for),
        (Some(false), _) => (
            format!("may not {what}"),
            format!("lost: {}", right.needed_for),
            format!("give ClusterRole memguard the verb \"{}\" on {}{group}", right.verb, right.resource),
        ),
        (None, problem) => (
            format!("can't tell whether it may {what}"),
            format!("needed for: {}", right.needed_for),
            problem.as_deref().map_or_else(|| "look at the API server".to_owned(), escaped),
        ),
    };
    match need {
        Need::Yes => Finding::of("right", Grade::Bad, fact, means, remedy),
        Need::Perhaps => {
            let remedy = format!("only with the older ARC ({}): {remedy}", right.group);
            Finding::of("right", Grade::Lesser, fact, means, remedy)
        }
        Need::No => Finding::good("right", format!("{fact}, which is as configured"), "not needed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::KubernetesSettings, doctor::worst};

    fn right(verb: &'static str, resource: &'static str, group: &'static str, granted: Option<bool>) -> Right {
        Right {
            verb,
            resource,
            group,
            namespace: None,
            granted,
            problem: None,
            needed_for: "a new runner right after a kill",
        }
    }

    #[test]
    fn a_missing_right_says_what_is_lost_and_what_to_give() {
        let with = |granted, problem: Option<&str>| Right {
            problem: problem.map(str::to_owned),
            ..right("delete", "ephemeralrunners", "actions.github.com", granted)
        };
        let rights = [with(Some(true), None), with(Some(false), None), with(None, Some("refused\n"))];
        let findings = cluster(&rights, &Configuration::default());
        assert_eq!(findings[0].grade, Grade::Good);
        let (missing, unknown) = (&findings[1], &findings[2]);
        assert_eq!(
            (missing.grade, missing.fact.as_str()),
            (Grade::Bad, "may not delete ephemeralrunners.actions.github.com")
        );
        assert!(missing.means.contains("new runner") && missing.remedy.as_ref().unwrap().contains("\"delete\""));
        assert_eq!((unknown.grade, unknown.remedy.as_deref()), (Grade::Bad, Some("refused\\n")));
    }

    #[test]
    fn a_right_of_the_older_arc_is_never_bad_to_lack() {
        let rights = ["get", "delete"].map(|verb| right(verb, "runners", "actions.summerwind.dev", Some(false)));
        let findings = cluster(&rights, &Configuration::default());
        assert_eq!(worst(&findings), Grade::Lesser);
        assert!(findings.iter().all(|finding| finding.remedy.as_ref().unwrap().contains("only with the older ARC")));
    }

    #[test]
    fn what_is_switched_off_needs_no_right() {
        let missing = |verb, resource, group| right(verb, resource, group, Some(false));
        let configured = |events, delete_runner, github: Option<_>| Configuration {
            kubernetes: KubernetesSettings { events, delete_runner, ..KubernetesSettings::default() },
            github,
            ..Configuration::default()
        };
        let arc = "actions.github.com";
        let grade = |right: &Right, configured: &Configuration| {
            let findings = cluster(std::slice::from_ref(right), configured);
            (findings[0].grade, findings[0].remedy.is_some())
        };
        let (good, bad) = ((Grade::Good, false), (Grade::Bad, true));
        let github = || {
            let text = "[github]\ntoken_file = \"/t\"";
            crate::config::configuration(&text.parse().unwrap()).unwrap().github
        };
        for (right, configured, expected) in [
            (missing("create", "events", "events.k8s.io"), configured(false, true, None), good),
            (missing("create", "events", "events.k8s.io"), configured(true, false, None), bad),
            (missing("delete", "ephemeralrunners", arc), configured(true, false, github()), good),
            (missing("delete", "runners", "actions.summerwind.dev"), configured(true, false, None), good),
            (missing("get", "ephemeralrunners", arc), configured(false, false, None), good),
            (missing("get", "ephemeralrunners", arc), configured(false, false, github()), bad),
            (missing("get", "pods", ""), configured(true, false, None), bad),
            (missing("list", "pods", ""), configured(false, false, None), bad),
        ] {
            assert_eq!(grade(&right, &configured), expected, "{right:?} {:?}", configured.kubernetes);
        }
    }
}
