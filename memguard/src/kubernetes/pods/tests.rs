//! What is kept of pods, and how much of it.

use serde_json::json;

use super::{
    metadata::{CONFIG_HASH, CONFIG_MIRROR, KEPT},
    *,
};
use crate::{kubernetes::fixture::runner_pod, workload::Qos};

const UID: &str = "7fb47c9c-45d8-4a2c-8f1e-0123456789ab";
const HASH: &str = "7fb47c9c45d84a2c8f1e0123456789ab";

fn place(uid: &str, container: Option<char>) -> Place {
    let container_id = container.map(|c| c.to_string().repeat(64));
    Place { pod_uid: uid.to_owned(), qos: Qos::Burstable, container_id, nested: false }
}

fn static_pod(uid: &str, annotation: &str) -> PodFacts {
    facts(
        &json!({"metadata": {"name": uid, "namespace": "kube-system", "uid": uid, "annotations": {annotation: HASH}}}),
    )
}

#[test]
fn a_cgroup_leads_to_its_pod_and_container() {
    let pods = Pods::default();
    assert_eq!(pods.of(&place(UID, None)), None);
    pods.put(facts(&runner_pod(UID, "runner-1")));
    let known = pods.clone().of(&place(UID, Some('a'))).unwrap();
    let pod = &known.facts;
    assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.node.as_str()), ("ci", "runner-1", "node-1"));
    assert_eq!(pod.owner.as_ref().map(|owner| owner.kind.as_str()), Some("EphemeralRunner"));
    assert_eq!(known.stale_since, None);
    let of = |c| pod.container(&place(UID, Some(c))).map(|c| (c.name.as_str(), c.init, c.restartable_init));
    assert_eq!(of('a'), Some(("runner", false, false)));
    assert_eq!(of('b'), Some(("dind", true, true)));
    assert_eq!(of('c'), Some(("init", true, false)));
    assert_eq!(of('d'), Some(("debug", false, false)));
    assert_eq!(of('e'), None, "started a moment ago");
    assert_eq!(pod.container(&place(UID, None)), None);
    assert_eq!(pod.containers[0].memory_limit.as_deref(), Some("4Gi"));
    pods.remove(UID);
    assert!(pods.is_empty());
}

#[test]
fn only_what_is_needed_is_kept() {
    let mut pod = runner_pod(UID, "runner-1");
    pod["metadata"]["annotations"]["memguard.dev/huge"] = "x".repeat(250_000).into();
    for i in 0..1000 {
        pod["metadata"]["annotations"][format!("memguard.dev/{i}")] = "x".into();
        pod["metadata"]["labels"][format!("l{i}")] = "x".into();
    }
    let pod = facts(&pod);
    assert_eq!((pod.annotations.len(), pod.labels.len()), (KEPT + 1, KEPT));
    assert!(!pod.annotations.contains_key("memguard.dev/huge") && !pod.annotations.contains_key("other/annotation"));
    assert!(pod.may_have_more_labels());
    assert!(!format!("{pod:?}").contains("SECRET"));
}

#[test]
fn what_a_pod_says_of_its_mode_is_never_lost() {
    let mut pod = runner_pod(UID, "runner-1");
    for i in 0..1000 {
        pod["metadata"]["annotations"][format!("memguard.dev/{i}")] = "x".into();
    }
    assert_eq!(facts(&pod).annotations["memguard.dev/mode"], "observe");
    pod["metadata"]["annotations"]["memguard.dev/mode"] = "é".repeat(100_000).into();
    let pod = facts(&pod);
    assert_eq!(pod.annotations["memguard.dev/mode"], "é".repeat(32), "enough to see that it is nonsense");
    assert!(pod.annotations.len() <= KEPT + 1);
}

#[test]
fn what_holds_now_comes_before_what_was_asked_for() {
    let mut pod = runner_pod(UID, "runner-1");
    pod["status"]["containerStatuses"][0]["resources"] = json!({"limits": {"memory": "6Gi"}});
    assert_eq!(facts(&pod).containers[0].memory_limit.as_deref(), Some("6Gi"));
}

#[test]
fn static_pods_are_found_by_the_hash_unless_two_claim_it() {
    for annotation in [CONFIG_HASH, CONFIG_MIRROR] {
        let pods = Pods::default();
        pods.put(static_pod("mirror", annotation));
        assert_eq!(pods.of(&place(HASH, None)).unwrap().facts.uid, "mirror");
        pods.put(static_pod("liar", annotation));
        assert_eq!(pods.of(&place(HASH, None)), None);
    }
    let pods = Pods::default();
    pods.put(static_pod("liar", CONFIG_HASH));
    pods.put(static_pod(HASH, "none"));
    assert_eq!(pods.of(&place(HASH, None)).unwrap().facts.uid, HASH, "a real uid comes first");
}

#[test]
fn half_empty_objects_are_no_trouble() {
    assert!(Incoming::default().facts().is_none());
    let pod =
        facts(&json!({"metadata": {"uid": "u"}, "status": {"containerStatuses": [{"name": "a", "containerID": ""}]}}));
    assert_eq!((pod.containers.len(), pod.owner), (0, None));
}

#[test]
fn a_large_pod_makes_room_for_small_ones_and_never_the_other_way() {
    let sized = |uid: &str, labels: usize| {
        let mut pod = runner_pod(uid, uid);
        for i in 0..labels {
            pod["metadata"]["labels"][format!("l{i}")] = "x".repeat(1000).into();
        }
        facts(&pod)
    };
    let (small, large) = (sized("a", 0).bytes(), sized("x", 60).bytes());
    assert!((400..3000).contains(&small) && large > 60_000, "{small} {large}");
    let most = 2 * large + 3 * small;
    let mut shared = Shared::default();
    for uid in ["a", "b", "c"] {
        assert_eq!(shared.put(sized(uid, 0), most), None);
    }
    assert_eq!(shared.put(sized("x", 60), most), None);
    assert_eq!(shared.put(sized("y", 60), most), None);
    assert_eq!(shared.put(sized("x", 60), most), None, "the same one again takes no more");
    assert_eq!(shared.put(sized("z", 61), most), Some("ci/z".to_owned()), "the largest, though it is the latest");
    assert!(shared.put(sized("d", 0), most).is_some());
    assert!(["a", "b", "c", "d"].iter().all(|uid| shared.pods.contains_key(*uid)), "{:?}", shared.pods.keys());
    assert_eq!(shared.pods.len(), 5);
    assert_eq!(shared.bytes, shared.pods.values().map(|kept| kept.facts.bytes()).sum::<usize>());
    for uid in shared.pods.keys().cloned().collect::<Vec<_>>() {
        shared.remove(&uid);
    }
    assert_eq!(shared.bytes, 0);
}

#[test]
fn a_list_takes_the_place_of_what_was_known_pod_by_pod() {
    let pods = Pods::told(vec![facts(&runner_pod("a", "a")), facts(&runner_pod("b", "b"))], None);
    pods.begin_list();
    pods.put(facts(&runner_pod("b", "again")));
    assert_eq!((pods.len(), pods.of(&place("b", None)).unwrap().facts.name.as_str()), (2, "again"));
    // It breaks off there, and the next one is whole.
    pods.begin_list();
    pods.put(facts(&runner_pod("c", "c")));
    pods.end_list();
    assert_eq!(pods.len(), 1);
    assert!(pods.of(&place("c", None)).is_some());
}

#[test]
fn what_goes_first_during_a_list_is_what_the_list_has_not_named() {
    let bytes = facts(&runner_pod("a", "a")).bytes();
    let mut shared = Shared::default();
    for uid in ["a", "b"] {
        shared.put(facts(&runner_pod(uid, uid)), 2 * bytes);
    }
    shared.list += 1;
    assert_eq!(shared.put(facts(&runner_pod("b", "b")), 2 * bytes), None);
    assert_eq!(shared.put(facts(&runner_pod("c", "c")), 2 * bytes), None, "nothing that is there is lost");
    assert!(shared.pods.contains_key("b") && shared.pods.contains_key("c"));
}

#[test]
fn managed_fields_and_owners_beyond_one_are_not_kept_and_null_is_none() {
    let mut pod = runner_pod(UID, "runner-1");
    pod["metadata"]["managedFields"] = json!([{"manager": "kubelet", "fieldsV1": {"f:metadata": {"f:labels": {}}}}]);
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let pod = facts(&pod);
    assert!(pod.terminating && pod.owner.is_some_and(|owner| owner.controller));
    let pod = facts(&json!({"metadata": {
        "uid": "u", "name": null, "labels": null, "annotations": null, "ownerReferences": null, "deletionTimestamp": null,
    }}));
    assert_eq!((pod.labels.len(), pod.owner, pod.terminating), (0, None, false));
}
