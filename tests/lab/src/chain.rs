//! The whole chain in the lab: from a hang to the last thing that is told of it, with memguard killed on the way, and with
//! what it depends on gone. Rounds, what a guest tells the program that plays GitHub and Kubernetes, and what that answers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The points at which memguard can be made to end itself, in the order of the chain: `memguard::crash::POINTS`.
pub const POINTS: &[&str] = &[
    "verdict",
    "journal-before",
    "journal-kept",
    "fresh-checked",
    "kill-written",
    "confirmed",
    "outcome-kept",
    "identify-before",
    "identify-answered",
    "identify-kept",
    "cancel-before",
    "cancel-answered",
    "cancel-kept",
    "cancel-watch-before",
    "cancel-watch-answered",
    "cancel-watch-kept",
    "force-cancel-before",
    "force-cancel-answered",
    "force-cancel-kept",
    "delete-runner-before",
    "delete-runner-answered",
    "delete-runner-kept",
    "pod-event-before",
    "pod-event-answered",
    "pod-event-kept",
    "runner-event-before",
    "runner-event-answered",
    "runner-event-kept",
    "check-run-before",
    "check-run-answered",
    "check-run-kept",
];

/// Points that are passed before the container is ended: the next memguard has to find the hang anew.
pub const BEFORE_THE_KILL: usize = 4;

/// What is wrong with the world in a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    #[default]
    None,
    /// From before the verdict on, for a minute: GitHub's port is closed, then it says 503, then it says nothing.
    GithubAway,
    /// From before the verdict on, for half a minute, the API server's port is closed.
    KubernetesAway,
    /// The file system with the journal is full from before the verdict on, until the container is dead for a while.
    DiskFull,
    /// It is full when memguard starts.
    DiskFullAtStart,
    /// Every write to the file system with the journal hangs, from before the verdict on, until the container is dead for
    /// a while.
    DiskHangs,
}

impl Fault {
    pub const ALL: [Self; 5] =
        [Self::GithubAway, Self::KubernetesAway, Self::DiskFull, Self::DiskFullAtStart, Self::DiskHangs];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::GithubAway => "github-away",
            Self::KubernetesAway => "kubernetes-away",
            Self::DiskFull => "disk-full",
            Self::DiskFullAtStart => "disk-full-at-start",
            Self::DiskHangs => "disk-hangs",
        }
    }
}

/// One hang, and all that follows from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Where memguard is killed, the first time that it comes there.
    pub point: Option<String>,
    pub fault: Fault,
}

impl Round {
    /// A round in which memguard is killed at a point.
    #[must_use]
    pub fn at(point: &str) -> Self {
        Self { point: Some(point.to_owned()), ..Self::default() }
    }

    #[must_use]
    pub fn with(fault: Fault) -> Self {
        Self { fault, ..Self::default() }
    }

    /// Whether the run goes on after its cancellation until that is repeated by force.
    #[must_use]
    pub fn is_stubborn(&self) -> bool {
        self.point.as_ref().is_some_and(|point| point.starts_with("force-cancel"))
    }

    /// Whether memguard is killed before it has ended the container.
    #[must_use]
    pub fn crashes_before_the_kill(&self) -> bool {
        self.point.as_ref().is_some_and(|point| POINTS[..BEFORE_THE_KILL].contains(&point.as_str()))
    }
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match (&self.point, self.fault) {
            (None, Fault::None) => "undisturbed".to_owned(),
            (None, fault) => fault.name().to_owned(),
            (Some(point), Fault::None) => format!("killed at {point}"),
            (Some(point), fault) => format!("{}, killed at {point}", fault.name()),
        };
        f.pad(&text)
    }
}

/// Everything: undisturbed, killed at every point, every fault, and a few of both together.
#[must_use]
pub fn all() -> Vec<Round> {
    let both = [
        (Fault::GithubAway, "cancel-before"),
        (Fault::KubernetesAway, "confirmed"),
        (Fault::DiskFull, "kill-written"),
        (Fault::DiskFullAtStart, "cancel-answered"),
        (Fault::DiskHangs, "kill-written"),
        (Fault::DiskHangs, "outcome-kept"),
    ];
    let mut rounds = vec![Round::default()];
    rounds.extend(POINTS.iter().map(|point| Round::at(point)));
    rounds.extend(Fault::ALL.map(Round::with));
    rounds.extend(both.map(|(fault, point)| Round { fault, ..Round::at(point) }));
    rounds
}

/// Those that tell most in little time.
#[must_use]
pub fn few() -> Vec<Round> {
    let mut rounds = vec![Round::default()];
    rounds.extend(["kill-written", "cancel-answered", "delete-runner-answered", "check-run-answered"].map(Round::at));
    rounds.push(Round::with(Fault::DiskHangs));
    rounds
}

/// The world of a round, for `lab-stubs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// Ports on the guest's loopback. With 0 a free one is taken.
    pub kubernetes_port: u16,
    pub github_port: u16,
    /// What the API server wants to see.
    pub token: String,
    pub node: String,
    pub namespace: String,
    pub pods: Vec<Pod>,
    /// The run of the runners' pod.
    pub repository: String,
    pub run_id: u64,
    /// It goes on after its cancellation until that is repeated by force.
    pub stubborn: bool,
}

/// Whose words they are if a guest could not play a round to its end ([`crate::Record::Output`]).
pub const ROUND: &str = "round";

/// What the world of every round is called.
pub const NAMESPACE: &str = "ci";
pub const REPOSITORY: &str = "octo/repo";
pub const RUN_ID: u64 = 9_500_000_001;
/// The pod that has a runner; all others are somebody's.
pub const RUNNER: &str = "runner";
/// What the API server wants to see. Looked for in all that memguard says: it must not be there.
pub const TOKEN: &str = "eyJsYWIiOiJ0b2tlbiJ9.bWVtZ3VhcmQtbGFi";

/// A pod of the world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    /// The uid of its `EphemeralRunner`, if it is a runner's.
    pub runner_uid: Option<String>,
    /// Names and ids.
    pub containers: Vec<(String, String)>,
}

/// Which of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Server {
    Github,
    Kubernetes,
}

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Well,
    /// Its port is closed.
    Refuses,
    /// It takes connections and says nothing.
    Hangs,
    /// It says 503 to everything.
    Unavailable,
}

/// A line for `lab-stubs`. The end of its input is the end of the round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub server: Server,
    pub is: State,
}

/// A line of `lab-stubs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// Both servers listen, at these ports.
    Ready { kubernetes_port: u16, github_port: u16 },
    /// Something that was asked, in the order of time. All of them come at the end.
    Request(Request),
    /// The run is over, at this time (`CLOCK_MONOTONIC` in seconds), with this conclusion.
    RunOver { t: f64, conclusion: String },
    /// ARC's controller removed a runner's object, its run being over.
    RunnerGone { t: f64, name: String },
    /// How the world is in the end. The last line.
    End(End),
}

/// How the world is in the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// How often GitHub took a cancellation of the run, and one by force.
    pub cancels: u32,
    pub force_cancels: u32,
    pub conclusion: Option<String>,
    /// A run that is not the runner's was asked to end.
    pub others_touched: bool,
    /// As they were sent.
    pub check_runs: Vec<Value>,
    /// The uid of the runner's object, and whether it is still there.
    pub runner_uid: String,
    pub runner_left: bool,
}

/// A request, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub server: Server,
    /// `CLOCK_MONOTONIC` in seconds.
    pub t: f64,
    pub method: String,
    /// With its query.
    pub path: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
    /// `None` where no answer was sent.
    pub code: Option<u16>,
    /// What it changed, in words: nothing, if it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_points_are_memguards() {
        assert_eq!(POINTS, memguard::crash::POINTS);
        assert_eq!(POINTS[BEFORE_THE_KILL], "kill-written");
    }

    #[test]
    fn every_round_can_be_told_from_the_others() {
        let all = all();
        let names: std::collections::BTreeSet<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), all.len());
        for round in all.iter().chain(&few()) {
            assert!(round.point.as_deref().is_none_or(|point| POINTS.contains(&point)), "{round}");
        }
        assert!(Round::at("force-cancel-kept").is_stubborn() && !Round::at("cancel-kept").is_stubborn());
        assert!(
            Round::at("fresh-checked").crashes_before_the_kill() && !Round::at("confirmed").crashes_before_the_kill()
        );
    }

    #[test]
    fn lines_survive_the_pipe() {
        let order = Order { server: Server::Github, is: State::Refuses };
        let text = serde_json::to_string(&order).unwrap();
        assert_eq!(serde_json::from_str::<Order>(&text).unwrap(), order);
        let ready = Told::Ready { kubernetes_port: 1, github_port: 2 };
        for told in [ready, Told::RunOver { t: 1.5, conclusion: "cancelled".to_owned() }] {
            let text = serde_json::to_string(&told).unwrap();
            assert_eq!(serde_json::from_str::<Told>(&text).unwrap(), told, "{text}");
        }
    }
}
