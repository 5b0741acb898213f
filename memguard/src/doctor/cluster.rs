//! What memguard may do at the Kubernetes API.

use super::{Finding, Grade};
use crate::{kubernetes::Right, telemetry::escaped};

/// A finding for each right. Pure. One that is missing is bad only where something that was asked for needs it.
#[must_use]
pub fn cluster(rights: &[Right]) -> Vec<Finding> {
    rights.iter().map(right).collect()
}

fn right(right: &Right) -> Finding {
    let group = if right.group.is_empty() { String::new() } else { format!(".{}", right.group) };
    let what = format!("{} {}{group}", right.verb, right.resource);
    match (right.granted, &right.problem) {
        (Some(true), _) => Finding::good("right", format!("may {what}"), right.needed_for),
        (Some(false), _) => Finding::of(
            "right",
            Grade::Bad,
            format!("may not {what}"),
            format!("lost: {}", right.needed_for),
            format!("give ClusterRole memguard the verb \"{}\" on {}{group}", right.verb, right.resource),
        ),
        (None, problem) => Finding::of(
            "right",
            Grade::Bad,
            format!("can't tell whether it may {what}"),
            format!("needed for: {}", right.needed_for),
            problem.as_deref().map_or_else(|| "look at the API server".to_owned(), escaped),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_says_what_is_lost_and_what_to_give() {
        let with = |granted, problem: Option<&str>| Right {
            verb: "delete",
            resource: "ephemeralrunners",
            group: "actions.github.com",
            namespace: None,
            granted,
            problem: problem.map(str::to_owned),
            needed_for: "a new runner right after a kill",
        };
        let findings = cluster(&[with(Some(true), None), with(Some(false), None), with(None, Some("refused\n"))]);
        assert_eq!(findings[0].grade, Grade::Good);
        let (missing, unknown) = (&findings[1], &findings[2]);
        assert_eq!(missing.fact, "may not delete ephemeralrunners.actions.github.com");
        assert!(missing.means.contains("new runner") && missing.remedy.as_ref().unwrap().contains("\"delete\""));
        assert_eq!((unknown.grade, unknown.remedy.as_deref()), (Grade::Bad, Some("refused\\n")));
    }
}
