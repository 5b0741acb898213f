//! Who is told of every event beside the log.

use std::sync::OnceLock;

use super::Event;

type Told = Box<dyn Fn(&Event) + Send + Sync>;

/// One for the process, as the log is: events come from several threads. Tests don't set it.
static ALSO: OnceLock<Told> = OnceLock::new();

/// Has every event told to somebody else too, who must not wait for anything. The first one stays.
pub fn tell_also(told: impl Fn(&Event) + Send + Sync + 'static) {
    let _ = ALSO.set(Box::new(told));
}

pub(super) fn tell(event: &Event) {
    if let Some(told) = ALSO.get() {
        told(event);
    }
}
