//! What the credentials for GitHub are good for.

use super::{Finding, Grade};
use crate::github::{Check, Verdict};

/// A finding for each check. Pure.
#[must_use]
pub fn github(checks: Vec<Check>) -> Vec<Finding> {
    checks.into_iter().map(finding).collect()
}

fn finding(check: Check) -> Finding {
    let Check { name, verdict, found, remedy } = check;
    let fact = format!("{name}: {found}");
    let remedy = || remedy.unwrap_or_else(|| "try again".to_owned());
    match verdict {
        Verdict::Good => Finding::good("github", fact, "as it should be"),
        Verdict::Bad => Finding::of(
            "github",
            Grade::Bad,
            fact,
            "runs of killed jobs are not cancelled, or nobody is told",
            remedy(),
        ),
        Verdict::Unknown => Finding::of("github", Grade::Lesser, fact, "not known before it is needed", remedy()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bad_is_bad_and_what_is_unknown_has_a_remedy() {
        let with = |verdict| Check { name: "login", verdict, found: "refused".to_owned(), remedy: None };
        let findings = github(vec![with(Verdict::Good), with(Verdict::Bad), with(Verdict::Unknown)]);
        assert_eq!(findings.iter().map(|f| f.grade).collect::<Vec<_>>(), [Grade::Good, Grade::Bad, Grade::Lesser]);
        assert!(findings[1].fact.contains("login: refused") && findings[2].remedy.is_some());
    }
}
