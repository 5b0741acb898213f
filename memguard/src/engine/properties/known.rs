//! The least cases of what the properties have found.

use std::time::Duration;

use super::world::{Doing, SECOND, Tick, UNIT, first_verdict, run, samples};
use crate::engine::{Cpu, Engine, Profile, Settings, Stall, State};

fn at(doing: Doing, seconds: usize) -> Vec<Tick> {
    vec![(SECOND, doing); seconds]
}

#[test]
fn a_short_window_counts_whole_ticks() {
    let settings = Settings { window: Duration::from_secs(2), ..Settings::default() };
    let samples = samples(&at(Doing::Hang, 30));
    let verdict = first_verdict(&run(&settings, &samples)).unwrap();
    assert_eq!(verdict - samples[0].at, settings.window + settings.hold);
}

#[test]
fn a_gap_ends_a_suspicion_however_patient() {
    let settings = Settings { hold: Duration::from_secs(20), grace_ticks: 10, ..Settings::default() };
    let life = [at(Doing::Hang, 24), vec![(3600 * SECOND, Doing::Hang)], at(Doing::Hang, 40)].concat();
    let samples = samples(&life);
    let verdict = first_verdict(&run(&settings, &samples)).unwrap() - samples[24].at;
    assert_eq!(verdict, settings.window + settings.hold, "as if nothing had been before");
}

#[test]
fn the_same_sample_again_does_not_end_a_suspicion() {
    // One look without a limit is one missed tick, and still one when it is handed over again and again.
    let mut samples = samples(&at(Doing::Hang, 40));
    samples[10].memory.max = None;
    let expected = run(&Settings::default(), &samples);
    assert_eq!(expected[10].state, State::Suspect);
    let mut engine = Engine::new(Settings::default());
    for (sample, expected) in samples.iter().zip(&expected) {
        assert_eq!(&engine.observe(UNIT, sample.clone()), expected);
        for _ in 0..5 {
            assert_eq!(engine.observe(UNIT, sample.clone()).state, expected.state);
        }
    }
}

#[test]
fn who_looks_twice_as_often_is_as_patient() {
    // A lapse of two seconds, with evaluations every half second.
    let mut samples = samples(&vec![(SECOND / 2, Doing::Hang); 60]);
    for sample in &mut samples[20..24] {
        sample.memory.max = None;
        sample.memory.high = None;
    }
    let observations = run(&Settings::default(), &samples);
    assert!(observations[18..30].iter().all(|observation| observation.state >= State::Suspect));
}

#[test]
fn cpu_time_that_begins_anew_is_not_time_lost() {
    let mut samples = samples(&at(Doing::Busy, 60));
    // Again and again less user time than before, as if it had none.
    for (index, sample) in samples.iter_mut().enumerate() {
        let since = u64::try_from(index % 5).unwrap();
        sample.cpu = Some(Cpu {
            user: Duration::from_millis(1800 * since),
            system: Duration::from_millis(200 * since),
            ..Cpu::default()
        });
    }
    for profile in [Profile::Fast, Profile::Default] {
        assert_eq!(first_verdict(&run(&Settings::profile(profile), &samples)), None);
    }
}

#[test]
fn time_without_a_cpu_that_begins_anew_is_not_time_lost() {
    // All of the waiting is for a CPU, and again and again there is less of that than before.
    for by_psi in [false, true] {
        let mut samples = samples(&at(Doing::Hang, 60));
        for (second, sample) in (0..).zip(&mut samples) {
            let denied = Duration::from_millis(900 * (second % 5));
            let user = Duration::from_millis(60 * second);
            sample.cpu = Some(Cpu { user, system: user, throttled: if by_psi { Duration::ZERO } else { denied } });
            let waiting = Duration::from_millis(900 * second);
            sample.pressure.memory = Some(Stall { some: waiting, full: waiting });
            sample.pressure.io = Some(Stall::default());
            sample.pressure.cpu = by_psi.then_some(Stall { some: denied, full: denied });
        }
        for profile in [Profile::Fast, Profile::Default] {
            assert_eq!(first_verdict(&run(&Settings::profile(profile), &samples)), None);
        }
    }
}

#[test]
fn an_oom_count_that_begins_anew_does_not_hide_an_oom() {
    let mut samples = samples(&at(Doing::Hang, 60));
    // An OOM in each window, and a counter that was reset in between.
    for (index, sample) in samples.iter_mut().enumerate() {
        sample.memory.oom_events = [5, 5, 6, 1, 2][index % 5];
    }
    assert_eq!(first_verdict(&run(&Settings::default(), &samples)), None);
}

#[test]
fn an_action_at_the_end_of_time_is_taken() {
    let mut engine = Engine::new(Settings::default());
    engine.observe(UNIT, samples(&at(Doing::Hang, 1)).remove(0));
    engine.acted(UNIT, Duration::MAX);
}
