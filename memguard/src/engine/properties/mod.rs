//! What has to hold of the engine whatever happens, tried on lives that nobody thought of.
//!
//! None of it depends on where a threshold is: a clear hang, and healthy lives far from one.

#![expect(clippy::unchecked_time_subtraction, reason = "a panic is a finding as well")]

mod known;
mod world;

use std::{collections::BTreeSet, time::Duration};

use proptest::{prelude::*, test_runner::RngSeed};

use self::world::{
    Doing, SECOND, UNIT, any_life, counter, first_verdict, healthy_life, nonsense, run, samples, settings, stretch,
};
use super::{Engine, Sample, Settings, State, UnitId, fixture::MIB, window::MOST_SAMPLES};
use crate::{fuzzing::sound, trace::Decided};

/// So long after the onset a clear hang has its verdict: the window, the evidence, three ticks, and one because ticks
/// jitter.
fn soon_enough(settings: &Settings) -> Duration {
    settings.window + settings.hold + Duration::from_secs(4)
}

/// About a hundred lives of each kind, the same ones each time; others, and as many as wanted, with `PROPTEST_CASES`.
fn config() -> ProptestConfig {
    let standard = ProptestConfig::default();
    let (cases, rng_seed) = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => (standard.cases, standard.rng_seed),
        None => (96, RngSeed::Fixed(20_261_124)),
    };
    ProptestConfig { cases, rng_seed, failure_persistence: None, max_shrink_iters: 8192, ..standard }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_verdict_comes_with_its_evidence(settings in settings(), life in any_life()) {
        let samples = samples(&life);
        let mut engine = Engine::new(settings.clone());
        for sample in &samples {
            let observation = engine.observe(UNIT, sample.clone());
            sound(&observation);
            if let Some(verdict) = &observation.verdict {
                prop_assert_eq!(observation.terms.as_ref(), Some(&verdict.terms));
                prop_assert_eq!(verdict.terms.missing().count(), 0);
                prop_assert!(verdict.held >= settings.hold);
                prop_assert!(verdict.at - samples[0].at >= settings.hold, "sooner than it can have been seen");
            }
        }
    }

    #[test]
    fn no_sense_gives_no_odd_numbers(settings in settings(), samples in prop::collection::vec(nonsense(), 1..60)) {
        let mut engine = Engine::new(settings);
        for (index, sample) in samples.into_iter().enumerate() {
            let limited = sample.memory.limit().is_some();
            let stale = sample.at;
            let observation = engine.observe(UNIT, sample);
            sound(&observation);
            if let Some(signals) = &observation.signals {
                // JSON has no NaN and no infinity: they would be null, as only what is missing may be.
                let json = serde_json::to_string(signals).unwrap();
                let missing = format!("{signals:?}").matches("None").count();
                prop_assert_eq!(json.matches("null").count(), missing, "{}", json);
            }
            prop_assert!(limited || observation.verdict.is_none());
            if index % 7 == 6 {
                engine.acted(UNIT, stale);
            }
        }
    }

    #[test]
    fn a_healthy_life_has_no_verdict(settings in settings(), life in healthy_life()) {
        prop_assert_eq!(first_verdict(&run(&settings, &samples(&life))), None);
    }

    #[test]
    fn a_clear_hang_has_one_soon(
        settings in settings(),
        before in healthy_life(),
        hang in stretch(Doing::Hang, 130..140),
    ) {
        let began = samples(&before).last().unwrap().at;
        let observations = run(&settings, &samples(&[before, hang].concat()));
        let verdict = first_verdict(&observations).expect("a verdict");
        prop_assert!(verdict - began <= soon_enough(&settings), "{:?} after its onset", verdict - began);
        prop_assert_eq!(observations.iter().filter(|o| o.verdict.is_some()).count(), 1, "one for one livelock");
    }

    /// Whatever else it does, one thing that a livelock can't be without is missing.
    #[test]
    fn nothing_to_blame_no_verdict(settings in settings(), life in any_life(), missing in 0..4_usize) {
        let samples: Vec<Sample> = samples(&life)
            .into_iter()
            .map(|mut sample| {
                let memory = &mut sample.memory;
                match missing {
                    0 => (memory.max, memory.high) = (None, None),
                    1 => (memory.anon, memory.shmem) = (10 * MIB, 10 * MIB),
                    2 => memory.refaults = 5,
                    _ => (memory.max_events, memory.high_events) = (5, 5),
                }
                sample
            })
            .collect();
        let observations = run(&settings, &samples);
        prop_assert_eq!(first_verdict(&observations), None);
        prop_assert!(missing > 0 || observations.iter().all(|o| o.state == State::Calm && o.signals.is_none()));
    }

    /// A counter begins again from 0, or goes on from somewhere else.
    #[test]
    fn a_counter_that_resets_or_jumps_makes_no_verdict(
        settings in settings(),
        life in healthy_life(),
        counter in counter(),
        at in any::<prop::sample::Index>(),
        jump in prop::option::of(1..=u64::MAX),
    ) {
        let mut samples = samples(&life);
        let from = at.index(samples.len());
        let mut base = None;
        for sample in &mut samples[from..] {
            counter.change(sample, |count| match jump {
                Some(by) => count.saturating_add(by),
                None => count,
            });
            if jump.is_none() {
                let mut found = 0;
                let seen = std::cell::Cell::new(0);
                counter.change(sample, |count| { seen.set(count); count });
                found += seen.get();
                let base = *base.get_or_insert(found);
                counter.change(sample, |count| count - base);
            }
        }
        prop_assert_eq!(first_verdict(&run(&settings, &samples)), None);
    }

    #[test]
    fn a_reset_only_delays_the_verdict_of_a_hang(
        settings in settings(),
        hang in stretch(Doing::Hang, 260..270),
        counter in counter(),
        from in 1..130_usize,
    ) {
        let mut samples = samples(&hang);
        let base = std::cell::Cell::new(0);
        counter.change(&mut samples[from].clone(), |count| { base.set(count); count });
        for sample in &mut samples[from..] {
            counter.change(sample, |count| count - base.get());
        }
        let verdict = first_verdict(&run(&settings, &samples)).expect("a verdict");
        prop_assert!(verdict <= samples[from].at + soon_enough(&settings) + settings.window, "{verdict:?}");
    }

    /// For one sample a counter reads as 0 or as the greatest there is.
    #[test]
    fn a_glitch_only_delays_the_verdict_of_a_hang(
        settings in settings(),
        hang in stretch(Doing::Hang, 260..270),
        counter in counter(),
        at in 1..130_usize,
        value in prop::sample::select(&[0, u64::MAX][..]),
    ) {
        let mut samples = samples(&hang);
        counter.change(&mut samples[at], |_| value);
        let verdict = first_verdict(&run(&settings, &samples)).expect("a verdict");
        prop_assert!(verdict <= samples[at].at + soon_enough(&settings) + settings.window, "{verdict:?}");
    }

    #[test]
    fn samples_of_the_past_change_nothing(
        settings in settings(),
        life in any_life(),
        stale in prop::collection::vec((any::<prop::sample::Index>(), 0..5_usize, nonsense()), 1..20),
    ) {
        let samples = samples(&life);
        let expected = run(&settings, &samples);
        let mut engine = Engine::new(settings);
        for (index, sample) in samples.iter().enumerate() {
            prop_assert_eq!(&engine.observe(UNIT, sample.clone()), &expected[index]);
            for (place, back, odd) in &stale {
                if place.index(samples.len()) == index {
                    // The same once more, one that comes late, or time that goes back with something else in it.
                    let known = &samples[index.saturating_sub(*back)];
                    let again = if *back == 4 { Sample { at: known.at, ..odd.clone() } } else { known.clone() };
                    let observation = engine.observe(UNIT, again);
                    prop_assert!(observation.verdict.is_none());
                    prop_assert_eq!((observation.before, observation.state), (expected[index].state, expected[index].state));
                }
            }
        }
    }

    /// An evaluation more, in the middle of a tick.
    #[test]
    fn ticks_split_in_two_give_the_same_verdict(
        settings in settings(),
        life in any_life(),
        splits in prop::collection::vec((any::<bool>(), 1..100_u64), 200),
    ) {
        let split: Vec<_> = life
            .iter()
            .zip(&splits)
            .flat_map(|((ns, doing), (split, percent))| {
                let first = if *split { ns / 100 * percent } else { 0 };
                [(first, *doing), (ns - first, *doing)]
            })
            .filter(|(ns, _)| *ns > 0)
            .collect();
        let whole = first_verdict(&run(&settings, &samples(&life)));
        let halves = first_verdict(&run(&settings, &samples(&split)));
        // Where one of them comes just before the cgroup recovers, the other may come just too late.
        let end = samples(&life).last().unwrap().at;
        match (whole, halves) {
            (Some(one), Some(other)) => {
                prop_assert!(one.abs_diff(other) <= Duration::from_millis(2500), "{one:?} or {other:?}");
            }
            (Some(only), None) | (None, Some(only)) => {
                let hanging = |at: Duration| samples(&life).iter().zip(&life).any(|(s, (_, doing))| s.at >= at && s.at < at + Duration::from_secs(3) && *doing != Doing::Hang);
                prop_assert!(hanging(only) || end - only < Duration::from_secs(3), "only one: at {only:?}");
            }
            (None, None) => {}
        }
    }

    #[test]
    fn lost_samples_delay_but_neither_hide_nor_invent(
        healthy in healthy_life(),
        hang in stretch(Doing::Hang, 120..130),
        lost in prop::collection::btree_set(0..240_usize, 0..40),
    ) {
        let settings = Settings::default();
        let keep = |samples: Vec<Sample>| -> Vec<Sample> {
            // Never more than two after another: a gap of a whole window is another story.
            let gone = |index: usize| lost.contains(&index) && !(lost.contains(&index.wrapping_sub(1)) && lost.contains(&index.wrapping_sub(2)));
            samples.into_iter().enumerate().filter(|(index, _)| !gone(*index)).map(|(_, sample)| sample).collect()
        };
        prop_assert_eq!(first_verdict(&run(&settings, &keep(samples(&healthy)))), None);
        prop_assert!(first_verdict(&run(&settings, &keep(samples(&hang)))).is_some());
    }

    #[test]
    fn time_nobody_looked_at_is_no_evidence(
        settings in settings(),
        before in stretch(Doing::Hang, 1..140),
        after in stretch(Doing::Hang, 1..140),
        hours in 1..100_000_u64,
    ) {
        let mut life = before.clone();
        life.push((hours * 3600 * SECOND, Doing::Hang));
        life.extend(after);
        let samples = samples(&life);
        let observations = run(&settings, &samples);
        let jump = samples[before.len()].at;
        for verdict in observations.iter().filter_map(|o| o.verdict.as_ref()).filter(|verdict| verdict.at >= jump) {
            prop_assert!(verdict.at - jump >= settings.hold, "{:?} after the gap", verdict.at - jump);
        }
    }

    /// In observe mode the engine is not told of an action, in enforce mode it is.
    #[test]
    fn dry_run_and_enforce_give_the_same_first_verdict(settings in settings(), life in any_life()) {
        let samples = samples(&life);
        let dry = run(&settings, &samples);
        let mut engine = Engine::new(settings.clone());
        let mut quiet_until = None;
        let mut same = true;
        for (sample, dry) in samples.iter().zip(&dry) {
            let observation = engine.observe(UNIT, sample.clone());
            if same {
                prop_assert_eq!(&observation, dry);
            }
            if let Some(verdict) = observation.verdict {
                prop_assert!(quiet_until.is_none_or(|until| verdict.at >= until), "within the delay");
                engine.acted(UNIT, verdict.at);
                quiet_until = Some(verdict.at + settings.post_action_delay);
                same = false;
            }
        }
    }

    #[test]
    fn the_same_samples_give_the_same_to_the_last_bit(
        settings in settings(),
        life in any_life(),
        odd in prop::collection::vec(nonsense(), 0..20),
    ) {
        let samples: Vec<Sample> = samples(&life).into_iter().chain(odd).collect();
        let digests = |observations: Vec<_>| observations.iter().map(Decided::of).collect::<Vec<_>>();
        prop_assert_eq!(digests(run(&settings, &samples)), digests(run(&settings, &samples)));
    }

    #[test]
    fn cgroups_do_not_touch_one_another(
        settings in settings(),
        lives in prop::collection::vec(any_life(), 2..4),
        order in prop::collection::vec(any::<prop::sample::Index>(), 600),
    ) {
        let lives: Vec<Vec<Sample>> = lives.iter().map(|life| samples(life)).collect();
        let mut engine = Engine::new(settings.clone());
        let mut seen: Vec<Vec<_>> = vec![Vec::new(); lives.len()];
        for pick in order {
            let unit = pick.index(lives.len());
            if let Some(sample) = lives[unit].get(seen[unit].len()) {
                seen[unit].push(engine.observe(UnitId(unit as u64), sample.clone()));
            }
        }
        for (seen, life) in seen.into_iter().zip(&lives) {
            let alone = run(&settings, &life[..seen.len()]);
            let decided = |observations: &[_]| observations.iter().map(Decided::of).map(|d| (d.state, d.verdict)).collect::<Vec<_>>();
            prop_assert_eq!(decided(&seen), decided(&alone));
            for (one, other) in seen.iter().zip(&alone) {
                prop_assert_eq!((&one.signals, &one.terms), (&other.signals, &other.terms));
            }
        }
    }

    #[test]
    fn memory_is_bounded(
        settings in settings(),
        steps in prop::collection::vec((0..4_u64, 0..SECOND), 1..2000),
        forgotten in prop::collection::btree_set(0..4_u64, 0..4),
    ) {
        let mut engine = Engine::new(settings);
        let mut units = BTreeSet::new();
        let mut at = Duration::from_secs(1000);
        let template = samples(&[(SECOND, Doing::Hang)]).remove(0);
        for (unit, ns) in steps {
            at += Duration::from_nanos(ns);
            units.insert(unit);
            engine.observe(UnitId(unit), Sample { at, ..template.clone() });
            prop_assert!(engine.samples() <= units.len() * MOST_SAMPLES);
        }
        for unit in 0..4 {
            if forgotten.contains(&unit) || forgotten.is_empty() {
                engine.forget(UnitId(unit));
                units.remove(&unit);
            }
        }
        prop_assert!(engine.samples() <= units.len() * MOST_SAMPLES);
    }
}
