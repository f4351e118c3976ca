//! One wake-up for all calls of a media worker.
//!
//! A worker writes its eventfd once per 20 ms tick in which it moved anything across an agent port. One task
//! per worker waits for that and wakes the pump of each of the worker's calls: one system call a tick, however
//! many calls there are.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Hands the ticks of one worker on to its calls. Dropping it ends that.
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
    wakes: HashMap<u64, Arc<Notify>>,
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

    /// Wakes `wake` at every tick until the seat is dropped.
    pub fn register(&self, wake: Arc<Notify>) -> TickSeat {
        let mut calls = lock(&self.calls);
        let seat = calls.next;
        calls.next += 1;
        calls.wakes.insert(seat, wake);
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

/// Ends when the descriptor fails; calls then live on their own slower timers.
async fn fan_out(mut eventfd: pipe::Receiver, calls: Arc<Mutex<Calls>>) {
    // Larger than what comes, so that a read that fills it not at all says there is no more.
    let mut ticks = [0; 16];
    loop {
        match eventfd.read(&mut ticks).await {
            Ok(0) => return,
            Ok(_) => lock(&calls).wakes.values().for_each(|wake| wake.notify_one()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::error!(%error, "the tick of a media worker cannot be read");
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

    use super::*;

    #[tokio::test]
    async fn a_tick_wakes_every_call_that_has_a_seat() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let fan = TickFan::start(theirs.into()).unwrap();
        let wakes = [(); 3].map(|()| Arc::new(Notify::new()));
        let mut seats: Vec<_> = wakes.iter().map(|wake| fan.register(Arc::clone(wake))).collect();
        assert_eq!(fan.len(), 3);
        (&ours).write_all(&1_u64.to_ne_bytes()).unwrap();
        for wake in &wakes {
            wake.notified().await;
        }
        seats.pop();
        assert_eq!(fan.len(), 2);
        (&ours).write_all(&1_u64.to_ne_bytes()).unwrap();
        wakes[0].notified().await;
        wakes[1].notified().await;
        let left = futures_util::FutureExt::now_or_never(wakes[2].notified());
        assert!(left.is_none(), "a call without a seat was woken");
    }
}
