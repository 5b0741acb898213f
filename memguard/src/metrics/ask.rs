//! Questions to the detection loop. It answers each between two other things that it does, and waits for nobody.

use std::time::Duration;

use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, timeout},
};

use super::Present;

/// A loop that has not answered by then hangs: it looks once a second, and waits 200 ms for a disk at most.
const PATIENCE: Duration = Duration::from_secs(3);
/// An answer that is younger serves everybody, so that many questions cost the loop no more than one.
const FRESH: Duration = Duration::from_secs(1);

/// Asks. Behind a lock, so that there is one question at a time.
#[derive(Debug)]
pub struct Asker {
    questions: mpsc::Sender<Question>,
    latest: Mutex<Option<(Instant, Present)>>,
}

/// To be answered with what is so now.
pub type Question = oneshot::Sender<Present>;

/// Where the loop takes the questions from. The default one never has any.
#[derive(Debug, Default)]
pub struct Questions(Option<mpsc::Receiver<Question>>);

/// Both ends.
#[must_use]
pub fn questions() -> (Asker, Questions) {
    let (questions, asked) = mpsc::channel(1);
    (Asker { questions, latest: Mutex::new(None) }, Questions(Some(asked)))
}

impl Asker {
    /// What is so now; `None` if the loop does not answer, or has not begun yet.
    pub async fn present(&self) -> Option<Present> {
        let mut latest = self.latest.lock().await;
        if let Some((at, present)) = &*latest
            && at.elapsed() < FRESH
        {
            return Some(present.clone());
        }
        let (tell, answer) = oneshot::channel();
        let asked = async {
            self.questions.send(tell).await.ok()?;
            answer.await.ok()
        };
        let present = timeout(PATIENCE, asked).await.ok().flatten();
        *latest = present.clone().map(|present| (Instant::now(), present));
        present
    }
}

impl Questions {
    /// Waits for the next question; for ever where nobody can ask any more.
    pub async fn next(&mut self) -> Question {
        if let Some(questions) = &mut self.0
            && let Some(question) = questions.recv().await
        {
            return question;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_lives_answers_and_is_asked_once_a_second_at_most() {
        let (asker, mut questions) = questions();
        let looping = tokio::spawn(async move {
            let mut answered = 0_u64;
            loop {
                let question = questions.next().await;
                answered += 1;
                let _ = question.send(Present { records: answered, ..Present::default() });
            }
        });
        let records = async || asker.present().await.map(|present| present.records);
        assert_eq!(records().await, Some(1));
        assert_eq!(records().await, Some(1), "the same moment");
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert_eq!(records().await, Some(2));
        looping.abort();
        let _ = looping.await;
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert_eq!(records().await, None, "it is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_is_noticed_and_who_does_not_wait_any_more_harms_nobody() {
        let (asker, mut questions) = questions();
        let began = Instant::now();
        assert!(asker.present().await.is_none());
        assert_eq!(began.elapsed(), PATIENCE);
        assert!(asker.present().await.is_none(), "the queue is full meanwhile");
        assert!(questions.next().await.send(Present::default()).is_err(), "nobody waits");
        let (present, ()) = tokio::join!(asker.present(), async {
            let _ = questions.next().await.send(Present::default());
        });
        assert!(present.is_some(), "it works again");
    }
}
