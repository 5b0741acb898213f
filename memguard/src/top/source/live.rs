//! A thread that reads what memguard tells, so that no key waits for it, and connects anew when it has ended.

use std::{
    mem,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::Link;
use crate::status::{Client, ClientError, Snapshot};

/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_secs(1);

/// The newest of what memguard told.
#[derive(Debug)]
pub struct Live {
    mailbox: Arc<Mailbox>,
    latest: Option<Arc<Snapshot>>,
    link: Link,
}

#[derive(Debug, Default)]
struct Mailbox {
    news: Mutex<News>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct News {
    snapshot: Option<Arc<Snapshot>>,
    link: Option<Link>,
}

impl Live {
    /// Connects, or waits for somebody to connect to. Fails where waiting would not help.
    pub fn start(socket: &Path) -> Result<Self, ClientError> {
        let (client, link) = match Client::connect(socket) {
            Ok(client) => (Some(client), Link::Live),
            Err(error @ ClientError::NotAllowed { .. }) => return Err(error),
            Err(error) => (None, Link::Waiting(error.to_string())),
        };
        let mailbox = Arc::new(Mailbox::default());
        let (into, socket) = (Arc::clone(&mailbox), socket.to_owned());
        thread::spawn(move || read(client, &socket, &into));
        Ok(Self { mailbox, latest: None, link })
    }

    pub(super) fn advance(&mut self) -> bool {
        let News { snapshot, link } = mem::take(&mut *self.mailbox.lock());
        let news = snapshot.is_some() || link.is_some();
        self.latest = snapshot.or_else(|| self.latest.take());
        self.link = link.unwrap_or_else(|| self.link.clone());
        news
    }

    pub(super) const fn latest(&self) -> Option<&Arc<Snapshot>> {
        self.latest.as_ref()
    }

    pub(super) const fn link(&self) -> &Link {
        &self.link
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.mailbox.closed.store(true, Ordering::Relaxed);
    }
}

impl Mailbox {
    fn lock(&self) -> std::sync::MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

/// The thread: until nobody wants to know any more.
fn read(mut client: Option<Client>, socket: &Path, mailbox: &Mailbox) {
    while !mailbox.closed() {
        let next = match &mut client {
            Some(client) => client.snapshot(),
            None => Client::connect(socket).and_then(|mut connected| {
                let first = connected.snapshot();
                client = Some(connected);
                first
            }),
        };
        let failed = next.is_err();
        {
            let mut news = mailbox.lock();
            match next {
                Ok(snapshot) => (news.snapshot, news.link) = (Some(Arc::new(snapshot)), Some(Link::Live)),
                Err(error) => news.link = Some(Link::Waiting(error.to_string())),
            }
        }
        if failed {
            client = None;
            thread::sleep(AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{status, top::tests::example};

    fn until(live: &mut Live, mut wanted: impl FnMut(&Live) -> bool) {
        let began = Instant::now();
        while !wanted(live) {
            assert!(began.elapsed() < Duration::from_secs(20), "{live:?}");
            live.advance();
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn waits_for_memguard_and_finds_it_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let socket = status::socket(dir.path());
        let mut live = Live::start(&socket).unwrap();
        let Link::Waiting(why) = live.link() else { panic!("{:?}", live.link()) };
        assert!(why.contains("memguard run"), "{why}");
        for version in ["one", "two"] {
            let mut publisher = status::serve(dir.path()).unwrap();
            until(&mut live, |live| {
                if publisher.watched() {
                    publisher_tells(&mut publisher, version);
                }
                live.latest().is_some_and(|latest| latest.version == version)
            });
            assert_eq!(live.link(), &Link::Live);
            drop(publisher);
            until(&mut live, |live| matches!(live.link(), Link::Waiting(_)));
            assert!(live.latest().is_some(), "what was seen stays on the screen");
        }
    }

    fn publisher_tells(publisher: &mut status::Publisher, version: &str) {
        publisher.publish(Snapshot { version: version.to_owned(), ..example() });
    }
}
