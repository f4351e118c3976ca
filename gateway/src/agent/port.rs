//! What a pump asks of a call's audio, so that a test can stand at the other end.

use media::port::{AgentPort, Down, Full, Up};

/// The call's audio as the pump needs it: [`AgentPort`], or a port a test can see both ends of.
pub(super) trait Port {
    fn pull(&mut self) -> Option<Up>;
    fn push(&mut self, item: Down) -> Result<(), Full>;
    fn room(&self) -> usize;
    fn clear(&mut self);
    fn pushed(&self) -> u64;
    fn consumed(&self) -> u64;
    fn played(&self) -> u64;
    fn overruns(&self) -> u64;
    fn is_closed(&self) -> bool;
}

impl Port for AgentPort {
    fn pull(&mut self) -> Option<Up> {
        self.pull()
    }

    fn push(&mut self, item: Down) -> Result<(), Full> {
        self.push(item)
    }

    fn room(&self) -> usize {
        self.room()
    }

    fn clear(&mut self) {
        self.clear();
    }

    fn pushed(&self) -> u64 {
        self.pushed()
    }

    fn consumed(&self) -> u64 {
        self.consumed()
    }

    fn played(&self) -> u64 {
        self.played()
    }

    fn overruns(&self) -> u64 {
        self.overruns()
    }

    fn is_closed(&self) -> bool {
        self.is_closed()
    }
}
