//! docs/chain.md: round by round, what came of it and how long it took.

use std::{collections::BTreeMap, fmt::Write as _};

use memguard_lab::record::PlayedWith;

use super::judge::Judged;

const HEAD: &str = "\
# The whole chain, and memguard killed at each of its steps

`cargo xtask lab chain all` wrote this file. In a VM a runner's container hangs again and again, in a tree of cgroups as the
kubelet makes it, with memguard, a Kubernetes API and a GitHub on the guest's loopback. Each time memguard has to end it,
cancel the run, delete the runner, and tell of it on the pod, on the runner and on the commit; each thing once in effect, in
that order, and nothing else: the other containers live, no other run is touched, the journal's store holds all of it in the
end, and no credential is in anything that was said.

In a round \"killed at X\" memguard gets SIGKILL at point X of its program (feature `crash-points`; the list is in
`memguard/src/crash.rs`), and is started again. The points `verdict` to `fresh-checked` come before the kill: the next memguard
has to find the hang anew. `X-before` is right before a request, `X-answered` before anything of its answer is written down,
`X-kept` after that.

- *github-away*: for 20 s each its port is closed, it says 503, and it says nothing.
- *kubernetes-away*: the API server's port is closed from before the verdict until 30 s after the container's death.
- *disk-full*: the file system of the journal has no room left from before the verdict on; *at-start*: before memguard starts.
- *disk-hangs*: it is frozen (`FIFREEZE`): every write to it waits, until 10 s after the container's death. A process that
  waits so can't even die, so a memguard that was killed is not gone before.

Times are those of a VM with emulated CPUs where that is how it ran; GitHub's stub ends a run 2 s after its cancellation, which
is seen with memguard's next look, 5 s later at most. Where memguard was killed before it could say when the verdict was, they
count from the container's death, and are marked with *. On a machine that has other work meanwhile they are longer: six of
these rounds are part of `cargo xtask test`, which shows theirs.
";

/// With which kernel and which memguard, or how many rounds with each if they were not all played with the same.
fn headline(with: &BTreeMap<Option<PlayedWith>, usize>) -> String {
    let told = |with: &Option<PlayedWith>| match with {
        Some(PlayedWith { kernel, memguard }) => {
            format!("kernel {kernel}, memguard `{memguard}` (beginning of its sha256)")
        }
        None => "kernel and memguard that were not noted".to_owned(),
    };
    let mut parts: Vec<(&Option<PlayedWith>, &usize)> = with.iter().collect();
    if let [(only, _)] = parts[..] {
        let told = told(only);
        return format!("{}{}.", told[..1].to_uppercase(), &told[1..]);
    }
    parts.sort_by(|a, b| b.1.cmp(a.1));
    let each: Vec<String> = parts.iter().map(|(with, count)| format!("{count} with {}", told(with))).collect();
    format!("**These rounds were not all played with the same**: {}.", each.join("; "))
}

/// `broken`: guests that broke off, whose rounds others have played.
pub(super) fn document(with: &BTreeMap<Option<PlayedWith>, usize>, judged: &[Judged], broken: &[String]) -> String {
    let mut text = HEAD.to_owned();
    let headline = headline(with);
    let _ = write!(
        text,
        "\n{headline}\n\n| round | outcome | verdict to kill | to empty | to the cancel request | to the run's end | to the \
         last effect |\n|---|---|---|---|---|---|---|\n"
    );
    for Judged { round, times, failures } in judged {
        let outcome = if failures.is_empty() { "all done, once".to_owned() } else { failures.join("; ") };
        let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0} ms"));
        let mark = if times.from_death { "*" } else { "" };
        let s = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} s{mark}"));
        let _ = writeln!(
            text,
            "| {round} | {} | {} | {} | {} | {} | {} |",
            outcome.replace('|', "\\|"),
            ms(times.to_kill_ms),
            ms(times.to_empty_ms),
            s(times.to_cancel_s),
            s(times.to_over_s),
            s(times.to_last_s)
        );
    }
    let mut kills: Vec<f64> = judged.iter().filter_map(|round| round.times.to_kill_ms).collect();
    kills.sort_by(f64::total_cmp);
    if let (Some(median), Some(most)) = (kills.get(kills.len() / 2), kills.last()) {
        let _ = write!(
            text,
            "\nFrom verdict to kill: {median:.0} ms in the median of {} rounds, {most:.0} ms at most.\n",
            kills.len()
        );
    }
    if !broken.is_empty() {
        text.push_str(
            "\nGuests that broke off before their end, and what they had left was played by another one:\n\n",
        );
        for why in broken {
            let _ = writeln!(text, "- {}", why.lines().next().unwrap_or_default());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use memguard_lab::chain::Round;

    use super::*;
    use crate::lab::chain::judge::Times;

    fn with(memguard: &str) -> PlayedWith {
        PlayedWith { kernel: "6.12".to_owned(), memguard: memguard.to_owned() }
    }

    #[test]
    fn rounds_of_several_builds_are_told_apart() {
        let told = headline(&BTreeMap::from([(Some(with("a")), 8), (Some(with("b")), 34), (None, 1)]));
        for part in ["not all played with the same", "34 with kernel 6.12, memguard `b`", "8 with", "1 with kernel and"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(told.find("34 with") < told.find("8 with"), "{told}");
    }

    #[test]
    fn a_line_for_each_round_and_a_median() {
        let round = |ms: Option<f64>, failures: &[&str]| Judged {
            round: Round::default(),
            times: Times { to_kill_ms: ms, from_death: ms.is_none(), to_last_s: Some(3.04), ..Times::default() },
            failures: failures.iter().map(|text| (*text).to_owned()).collect(),
        };
        let text = document(
            &BTreeMap::from([(Some(with("a")), 4)]),
            &[round(Some(3.0), &[]), round(None, &["a|b"]), round(Some(200.0), &[]), round(Some(5.0), &[])],
            &["a guest broke off in undisturbed: it was silent\n  console: x".to_owned()],
        );
        assert!(text.contains("\nKernel 6.12, memguard `a` (beginning of its sha256).\n"), "{text}");
        assert!(text.contains("| undisturbed | all done, once | 3 ms | - | - | - | 3.0 s |\n"), "{text}");
        assert!(text.contains("| undisturbed | a\\|b | - | - | - | - | 3.0 s* |\n"), "{text}");
        assert!(text.ends_with("- a guest broke off in undisturbed: it was silent\n"), "{text}");
        assert!(text.contains("5 ms in the median of 3 rounds, 200 ms at most"), "{text}");
    }
}
