//! One bell for all calls of a media worker.
//!
//! A worker writes its eventfd as soon as it has given any agent something; what it gives several agents at
//! about the same time is one write. One task per worker waits for that, takes from a board which of the
//! worker's calls it is for, and wakes their pumps and no others.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use media::board::Board;
use media::port::PortNews;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use super::wake::Wake;

/// Hands the bell of one worker on to its calls. Dropping it ends that.
#[derive(Debug)]
pub struct TickFan {
    board: Arc<Board>,
    seats: Arc<Mutex<Seats>>,
    task: JoinHandle<()>,
}

/// A call's place in the fan; dropping it gives the place up.
#[derive(Debug)]
pub struct TickSeat {
    seats: Arc<Mutex<Seats>>,
    place: usize,
    news: PortNews,
}

/// Who is woken for which place of the board.
#[derive(Debug, Default)]
struct Seats {
    wakes: Vec<Option<Arc<Wake>>>,
    free: Vec<usize>,
}

impl TickFan {
    /// Starts to listen on `eventfd`, which must be in non-blocking mode and have no other reader, for at most
    /// `places` calls at a time. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the descriptor cannot be watched.
    pub fn start(eventfd: OwnedFd, places: usize) -> io::Result<TickFan> {
        // For epoll and read an eventfd is a pipe that gives eight octets at a time.
        let eventfd = pipe::Receiver::from_owned_fd_unchecked(eventfd)?;
        let board = Arc::new(Board::new(places));
        let seats = Arc::new(Mutex::new(Seats::default()));
        let task = tokio::spawn(fan_out(eventfd, Arc::clone(&board), Arc::clone(&seats)));
        Ok(TickFan { board, seats, task })
    }

    /// Wakes `wake` whenever the worker has given something to the port that `news` tells of, until the seat is
    /// dropped.
    pub fn register(&self, wake: Arc<Wake>, news: PortNews) -> TickSeat {
        let place = lock(&self.seats).take(Arc::clone(&wake));
        news.mark_at(&self.board, place);
        // What was given before that is marked nowhere.
        wake.audio();
        TickSeat { seats: Arc::clone(&self.seats), place, news }
    }

    /// Calls that are woken.
    pub fn len(&self) -> usize {
        let seats = lock(&self.seats);
        seats.wakes.len() - seats.free.len()
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
        self.news.mark_nowhere();
        lock(&self.seats).give_up(self.place);
    }
}

impl Seats {
    fn take(&mut self, wake: Arc<Wake>) -> usize {
        let place = self.free.pop().unwrap_or(self.wakes.len());
        match self.wakes.get_mut(place) {
            Some(seat) => *seat = Some(wake),
            None => self.wakes.push(Some(wake)),
        }
        place
    }

    fn give_up(&mut self, place: usize) {
        if let Some(seat) = self.wakes.get_mut(place) {
            *seat = None;
            self.free.push(place);
        }
    }
}

/// Ends when the descriptor fails; calls then live on their own slower timers.
async fn fan_out(mut eventfd: pipe::Receiver, board: Arc<Board>, seats: Arc<Mutex<Seats>>) {
    // Larger than what comes, so that a read that fills it not at all says there is no more.
    let mut rings = [0; 16];
    loop {
        match eventfd.read(&mut rings).await {
            Ok(0) => return,
            Ok(_) => {
                let seats = lock(&seats);
                board.take(|place| {
                    if let Some(Some(wake)) = seats.wakes.get(place) {
                        wake.audio();
                    }
                });
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::error!(%error, "the bell of a media worker cannot be read");
                return;
            }
        }
    }
}

/// Nothing that can panic runs under the lock, so a poisoned one is still whole.
fn lock(seats: &Mutex<Seats>) -> MutexGuard<'_, Seats> {
    seats.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use media::Up;

    use super::*;

    /// Whether `wake` was woken since the last time.
    fn is_woken(wake: &Wake) -> bool {
        wake.take_audio()
    }

    #[tokio::test]
    async fn a_ring_wakes_every_call_that_has_a_seat_and_was_given_something() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let fan = TickFan::start(theirs.into(), 4).unwrap();
        let wakes = [(); 4].map(|()| Arc::new(Wake::default()));
        let mut ports = [(); 4].map(|()| media::agent_port(1).0);
        let seats = wakes.iter().zip(&ports);
        let mut seats: Vec<_> =
            seats.map(|(wake, port)| fan.register(Arc::clone(wake), port.news())).collect();
        seats.pop();
        assert_eq!(fan.len(), 3);
        assert!(
            wakes.iter().all(|wake| is_woken(wake)),
            "what was there before is to be looked for"
        );
        for given in [[0, 2, 3], [1, 2, 3]] {
            for at in given {
                ports[at].give(Up::Digit { digit: '1', duration_ms: 100 });
            }
            (&ours).write_all(&1_u64.to_ne_bytes()).unwrap();
            wakes[given[0]].rung().await;
            assert!(is_woken(&wakes[given[0]]) && is_woken(&wakes[given[1]]));
            for (at, wake) in wakes.iter().enumerate() {
                assert!(!is_woken(wake), "call {at} was woken for nothing");
            }
        }
    }

    #[tokio::test]
    async fn a_place_that_was_given_up_is_given_to_the_next() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let fan = TickFan::start(theirs.into(), 2).unwrap();
        let port = media::agent_port(1).0;
        for _ in 0..100 {
            let _seat = fan.register(Arc::default(), port.news());
            assert_eq!(fan.len(), 1);
        }
        assert!(fan.is_empty());
        assert_eq!(lock(&fan.seats).wakes.len(), 1);
    }
}
