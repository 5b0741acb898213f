//! The worker, from an incident to the journal.

use super::*;

/// Runs the worker on an incident until all is settled, and returns the incident as the journal has it.
async fn settle(world: &World, incident: Incident) -> Incident {
    settle_and_listen(world, incident).await.0
}

/// The same with all events, in words.
async fn settle_and_listen(world: &World, incident: Incident) -> (Incident, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("state"), dir.path()).unwrap().journal;
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let worker = Worker::new(watch::channel(world.clone()).1, journal.pen(), KnownRunners::default());
    let worker = worker.telling_events(move |event| told.lock().unwrap().push(event.to_string()));
    let (asks, inbox) = tokio::sync::mpsc::channel(4);
    let running = tokio::spawn(worker.run(inbox));
    let id = incident.id.clone();
    asks.send(Ask::Follow(Box::new(incident))).await.unwrap();
    let copies = crate::journal::Copies::below(dir.path());
    for _ in 0..4000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if let Some(kept) = copies.all().into_iter().find(|kept| kept.id == id && !kept.is_open()) {
            drop(asks);
            running.await.unwrap();
            assert!(journal.close(Duration::from_secs(5)));
            let stored = crate::journal::read_only(&dir.path().join("state")).unwrap();
            assert_eq!(stored, std::slice::from_ref(&kept), "what is in the run folder is on the disk too");
            let events = events.lock().unwrap().clone();
            return (kept, events);
        }
    }
    panic!("it does not end: {:?}", copies.all());
}

#[tokio::test]
async fn from_the_kill_to_the_last_answer_each_once_and_in_order() {
    let world = World::default().with(|s| s.run.extend([Ok(going()), Ok(going()), Ok(over())]));
    let kept = settle(&world, incident()).await;
    assert!(
        kept.follow_ups.iter().all(|follow_up| matches!(follow_up.progress, Progress::Done { .. })),
        "{:#?}",
        kept.follow_ups
    );
    let asked = world.asked();
    let at = |what: &str| {
        let at: Vec<_> = (0..asked.len()).filter(|i| asked[*i].starts_with(what)).collect();
        assert_eq!(at.len(), 1, "{what} in {asked:?}");
        at[0]
    };
    assert!(at("runner runner-1") < at("cancel 42"));
    assert!(at("cancel 42") < at("delete runner-1 u-1") && at("cancel 42") < at("check on abc"));
    assert_eq!(at("notify Pod Killed").min(at("notify EphemeralRunner Killed")), at("notify Pod Killed"));
}

#[tokio::test]
async fn what_fails_is_tried_again_and_what_can_not_work_ends_with_a_reason() {
    let later = || Err(Failure::Later { after: None, why: "503".to_owned() });
    let world = World::default().with(|s| {
        s.notify.extend([later(), Ok(())]);
        s.runner.extend([Err(Failure::Final { why: "403".to_owned() })]);
    });
    let kept = settle(&world, incident()).await;
    let of = |kind| kept.follow_ups.iter().find(|f| f.kind == kind).unwrap().progress.clone();
    assert!(matches!(of(Kind::PodEvent), Progress::Done { .. }));
    assert!(matches!(of(Kind::Identify), Progress::GaveUp { why, .. } if why == "403"));
    assert!(matches!(of(Kind::Cancel), Progress::NotNeeded { .. }));
    assert!(!world.asked().iter().any(|asked| asked.starts_with("cancel") || asked.starts_with("delete")));
}

#[tokio::test]
async fn a_runner_that_was_looked_up_early_is_known_without_waiting() {
    let (known, journal) = (KnownRunners::default(), Journal::none());
    let worker = Worker::new(watch::channel(World::default()).1, journal.pen(), known.clone());
    let (asks, inbox) = tokio::sync::mpsc::channel(4);
    let running = tokio::spawn(worker.run(inbox));
    let runner = facts().runner();
    assert_eq!(known.of(&runner), None);
    asks.send(Ask::LookUp(Box::new(runner.clone()))).await.unwrap();
    drop(asks);
    running.await.unwrap();
    assert_eq!(known.of(&runner), Some(facts()));
    assert_eq!(known.of(&RunnerRef { uid: Some("another".to_owned()), ..runner }), None);
}

/// Sentences of follow-ups that are not needed, with how often they were told.
async fn told(world: &World, incident: Incident) -> Vec<(String, usize)> {
    let (kept, events) = settle_and_listen(world, incident).await;
    let not_needed = kept.follow_ups.iter().filter(|this| matches!(this.progress, Progress::NotNeeded { .. }));
    let count = |sentence: &str| events.iter().filter(|event| event.ends_with(sentence)).count();
    not_needed.map(|this| (this.outcome(), count(&this.outcome()))).collect()
}

#[tokio::test]
async fn what_is_settled_by_something_else_is_told_once_with_its_reason() {
    let mut idle = facts();
    idle.job = None;
    let world = World::default().with(|s| s.runner.push_back(Ok(idle)));
    let told = told(&world, incident()).await;
    let once = |sentence: &str| (sentence.to_owned(), 1);
    assert_eq!(
        told,
        [
            once("cancelling the GitHub run: not needed, the runner had no job"),
            once("the check run: not needed, the runner had no job"),
        ]
    );
}

#[tokio::test]
async fn so_is_what_is_settled_by_how_the_container_ended() {
    let stage = Stage::Done { ended: Ended::NobodyDied { waited_ms: 1 } };
    let told = told(&World::default(), Incident { stage, ..incident() }).await;
    assert_eq!(told.len(), Kind::ALL.len());
    assert!(
        told.iter().all(|(sentence, count)| sentence.ends_with("not needed, nobody died") && *count == 1),
        "{told:?}"
    );
}
