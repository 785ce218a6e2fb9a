//! An observer that ends a run.

use gateloop_transformer::train::{Interrupt, Observer, Tick};

/// Asks for the end of the run at a step, as Ctrl-C would.
pub(crate) struct StopAt(pub(crate) u64, pub(crate) Interrupt);

impl Observer for StopAt {
    fn tick(&mut self, tick: &Tick) {
        if tick.step == self.0 {
            self.1.request();
        }
    }
}
