//! Windows gathered ahead of time, by a thread of their own.

use super::Windows;
use crate::data::{Batch, SamplerState};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// Batches that wait to be learned from.
const AHEAD: usize = 2;

/// A stream of windows of which the next few are being read while the model computes. The order is the stream's.
#[derive(Debug)]
pub(super) struct Prefetch {
    /// Where the stream is, as far as it has been handed out.
    windows: Windows,
    batch: usize,
    /// `None` once the thread is gone, and where there never was one.
    ready: Option<Receiver<Ready>>,
}

/// The windows, whether they have nothing before them, and where the stream is behind them.
type Ready = (Batch, bool, SamplerState);

impl Prefetch {
    pub(super) fn new(windows: Windows, batch: usize) -> Self {
        let ready = gather(windows.clone(), batch);
        Self { windows, batch, ready }
    }

    /// The next windows, and whether they have nothing before them.
    pub(super) fn next_batch(&mut self) -> (Batch, bool) {
        // A system that gives no thread only makes this slower.
        let ready = self.ready.as_ref().and_then(|ready| ready.recv().ok());
        let Some((batch, begins, state)) = ready else {
            self.ready = None;
            return self.windows.next_batch(self.batch);
        };
        self.windows.restore(state);
        (batch, begins)
    }

    pub(super) fn state(&self) -> SamplerState {
        self.windows.state()
    }

    /// Goes on from another place; what was read ahead is dropped.
    pub(super) fn restore(&mut self, state: SamplerState) {
        self.windows.restore(state);
        self.ready = gather(self.windows.clone(), self.batch);
    }
}

/// Starts a thread that ends when nobody wants its batches any more.
fn gather(mut windows: Windows, batch: usize) -> Option<Receiver<Ready>> {
    let (sender, receiver) = sync_channel(AHEAD);
    let work = move || {
        loop {
            let (next, begins) = windows.next_batch(batch);
            if sender.send((next, begins, windows.state())).is_err() {
                return;
            }
        }
    };
    let started = thread::Builder::new().name("gateloop-data".to_owned()).spawn(work);
    started.is_ok().then_some(receiver)
}

#[cfg(test)]
mod tests {
    use super::Prefetch;
    use crate::config::{DataConfig, Source, Synthetic};
    use crate::data::{Corpus, Split, StreamSampler, WindowSampler};
    use crate::train::Windows;

    fn streams() -> [Windows; 2] {
        let source = Source::Synthetic(Synthetic::Text);
        let data =
            DataConfig { source, tokenizer: None, train_bytes: Some(3000), valid_bytes: Some(100) };
        let corpus = Corpus::open(&data).unwrap();
        let random = WindowSampler::new(&corpus, Split::Train, 16, 7).unwrap();
        let sequential = StreamSampler::new(&corpus, Split::Train, 16, 6, 7).unwrap();
        [random.into(), sequential.into()]
    }

    #[test]
    fn the_order_and_the_position_are_those_of_the_stream() {
        for windows in streams() {
            let (mut direct, mut prefetched) = (windows.clone(), Prefetch::new(windows, 3));
            for _ in 0..20 {
                assert_eq!(prefetched.next_batch(), direct.next_batch(3));
                assert_eq!(prefetched.state(), direct.state());
            }
        }
    }

    #[test]
    fn it_goes_on_from_any_position_and_without_its_thread() {
        for windows in streams() {
            let mut direct = windows.clone();
            let mut prefetched = Prefetch::new(windows, 2);
            let start = prefetched.state();
            let first = prefetched.next_batch();
            let _ = prefetched.next_batch();
            prefetched.restore(start);
            assert_eq!(prefetched.next_batch(), first);
            assert_eq!(direct.next_batch(2), first);
            prefetched.ready = None;
            assert_eq!(prefetched.next_batch(), direct.next_batch(2));
        }
    }
}
