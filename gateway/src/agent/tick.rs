//! One bell for all calls of a media worker.
//!
//! A worker writes its eventfd as soon as it has given any agent something; what it gives several agents at
//! about the same time is one write. One task per worker waits for that, asks which of the worker's calls it is
//! for, and wakes their pumps and no others.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use media::port::PortNews;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Hands the bell of one worker on to its calls. Dropping it ends that.
#[derive(Debug)]
pub struct TickFan {
    calls: Arc<Mutex<Calls>>,
    task: JoinHandle<()>,
}

/// A call's place in the fan; dropping it gives the place up.
#[derive(Debug)]
pub struct TickSeat {
    calls: Arc<Mutex<Calls>>,
    seat: u64,
}

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    wakes: HashMap<u64, (Arc<Notify>, PortNews)>,
}

impl TickFan {
    /// Starts to listen on `eventfd`, which must be in non-blocking mode and have no other reader. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// When the descriptor cannot be watched.
    pub fn start(eventfd: OwnedFd) -> io::Result<TickFan> {
        // For epoll and read an eventfd is a pipe that gives eight octets at a time.
        let eventfd = pipe::Receiver::from_owned_fd_unchecked(eventfd)?;
        let calls = Arc::new(Mutex::new(Calls::default()));
        let task = tokio::spawn(fan_out(eventfd, Arc::clone(&calls)));
        Ok(TickFan { calls, task })
    }

    /// Wakes `wake` whenever the worker has given something to the port that `news` tells of, until the seat is
    /// dropped.
    pub fn register(&self, wake: Arc<Notify>, news: PortNews) -> TickSeat {
        let mut calls = lock(&self.calls);
        let seat = calls.next;
        calls.next += 1;
        calls.wakes.insert(seat, (wake, news));
        TickSeat { calls: Arc::clone(&self.calls), seat }
    }

    /// Calls that are woken.
    pub fn len(&self) -> usize {
        lock(&self.calls).wakes.len()
    }

    /// Whether there is no call.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for TickFan {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for TickSeat {
    fn drop(&mut self) {
        lock(&self.calls).wakes.remove(&self.seat);
    }
}

impl Calls {
    /// Wakes those that were given something.
    fn wake(&self) {
        let fed = self.wakes.values().filter(|(_, news)| news.take());
        fed.for_each(|(wake, _)| wake.notify_one());
    }
}

/// Ends when the descriptor fails; calls then live on their own slower timers.
async fn fan_out(mut eventfd: pipe::Receiver, calls: Arc<Mutex<Calls>>) {
    // Larger than what comes, so that a read that fills it not at all says there is no more.
    let mut rings = [0; 16];
    loop {
        match eventfd.read(&mut rings).await {
            Ok(0) => return,
            Ok(_) => lock(&calls).wake(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::error!(%error, "the bell of a media worker cannot be read");
                return;
            }
        }
    }
}

/// Nothing that can panic runs under the lock, so a poisoned one is still whole.
fn lock(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use media::Up;

    use super::*;

    #[tokio::test]
    async fn a_ring_wakes_every_call_that_has_a_seat_and_was_given_something() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let fan = TickFan::start(theirs.into()).unwrap();
        let wakes = [(); 4].map(|()| Arc::new(Notify::new()));
        let mut ports = [(); 4].map(|()| media::agent_port(1).0);
        let seats = wakes.iter().zip(&ports);
        let mut seats: Vec<_> =
            seats.map(|(wake, port)| fan.register(Arc::clone(wake), port.news())).collect();
        seats.pop();
        assert_eq!(fan.len(), 3);
        for given in [[0, 2, 3], [1, 2, 3]] {
            for at in given {
                ports[at].give(Up::Digit { digit: '1', duration_ms: 100 });
            }
            (&ours).write_all(&1_u64.to_ne_bytes()).unwrap();
            wakes[given[0]].notified().await;
            wakes[given[1]].notified().await;
            for (at, wake) in wakes.iter().enumerate() {
                let left = futures_util::FutureExt::now_or_never(wake.notified());
                assert!(left.is_none(), "call {at} was woken for nothing");
            }
        }
    }
}
