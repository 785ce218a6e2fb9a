//! Ranks that are threads of this process.

use gateloop_nn::{NnError, Result, SequenceRanks};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tch::Tensor;

/// Whoever waits longer is alone: a rank has failed, and so shall the others.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the ranks meet.
#[derive(Debug)]
struct Meeting {
    size: usize,
    round: Mutex<Round>,
    all_here: Condvar,
    gathers: AtomicUsize,
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Round {
    /// What each rank has brought to this round.
    brought: Vec<Option<Tensor>>,
    /// What the last round came to, and the round's number.
    result: Option<Tensor>,
    number: usize,
}

/// One rank.
#[derive(Debug)]
pub(crate) struct Member {
    rank: usize,
    meeting: Arc<Meeting>,
}

impl SequenceRanks for Member {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.meeting.size
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor> {
        assert!(!tensor.is_complex() && tensor.is_contiguous() && tensor.dim() == 1);
        let meeting = &self.meeting;
        let mut round = meeting.round.lock().unwrap_or_else(PoisonError::into_inner);
        round.brought[self.rank] = Some(tensor.copy());
        let number = round.number;
        if round.brought.iter().all(Option::is_some) {
            let all: Vec<Tensor> = round.brought.iter_mut().filter_map(Option::take).collect();
            meeting.gathers.fetch_add(1, Ordering::SeqCst);
            let bytes: usize =
                all.iter().map(|part| part.numel() * part.kind().elt_size_in_bytes()).sum();
            meeting.bytes.fetch_add(bytes, Ordering::SeqCst);
            round.result = Tensor::f_stack(&all, 0).ok();
            round.number += 1;
            meeting.all_here.notify_all();
        }
        let (round, late) = meeting
            .all_here
            .wait_timeout_while(round, PATIENCE, |round| round.number == number)
            .unwrap_or_else(PoisonError::into_inner);
        // Nobody begins the round after the next before everyone has left this one.
        match &round.result {
            Some(result) if !late.timed_out() => Ok(result.copy()),
            _ => Err(NnError::Gather {
                what: "tensors",
                rank: self.rank,
                source: "the others do not come, or bring something else".into(),
            }),
        }
    }
}

/// What all ranks gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Collective calls, each counted once for all ranks.
    pub(crate) gathers: usize,
    /// Bytes that the ranks sent, all together.
    pub(crate) bytes: usize,
}

/// Runs `f` on as many ranks at once as there are pieces, each with its own; what each returns, in the order of ranks.
pub(crate) fn on_ranks<P: Send, T: Send>(
    pieces: Vec<P>,
    f: impl Fn(P, &Arc<dyn SequenceRanks>) -> T + Sync,
) -> (Vec<T>, Traffic) {
    let size = pieces.len();
    let round = Round { brought: (0..size).map(|_| None).collect(), ..Round::default() };
    let meeting = Arc::new(Meeting {
        size,
        round: Mutex::new(round),
        all_here: Condvar::new(),
        gathers: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
    });
    let results = thread::scope(|scope| {
        let run = |(rank, piece)| {
            let ranks: Arc<dyn SequenceRanks> =
                Arc::new(Member { rank, meeting: Arc::clone(&meeting) });
            let f = &f;
            scope.spawn(move || f(piece, &ranks))
        };
        let threads: Vec<_> = pieces.into_iter().enumerate().map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
    });
    let traffic = Traffic {
        gathers: meeting.gathers.load(Ordering::SeqCst),
        bytes: meeting.bytes.load(Ordering::SeqCst),
    };
    (results, traffic)
}

/// Bounds of slices: even, with slices of one token, and uneven, for 1 to 4 ranks.
pub(crate) fn partitions(seqlen: i64) -> Vec<Vec<i64>> {
    let t = seqlen;
    vec![
        vec![0, t],
        vec![0, t / 2, t],
        vec![0, 1, t],
        vec![0, t - 1, t],
        vec![0, t / 3, 2 * t / 3, t],
        vec![0, 2, 3, t],
        vec![0, 1, 2, 3, t],
        vec![0, t / 2, t - 2, t - 1, t],
        vec![0, t / 5, t / 2, t - 3, t],
    ]
}

/// Where the slices of ranks begin and end.
pub(crate) fn edges(bounds: &[i64]) -> Vec<[i64; 2]> {
    bounds.windows(2).map(|edges| [edges[0], edges[1]]).collect()
}

/// Tokens `from` to `to` of a tensor [B, T, ..].
pub(crate) fn tokens(tensor: &Tensor, [from, to]: [i64; 2]) -> Tensor {
    tensor.narrow(1, from, to - from)
}

/// Tokens `from` to `to` of flags [B, T] in row-major order.
pub(crate) fn flags(starts: &[bool], seqlen: i64, [from, to]: [i64; 2]) -> Vec<bool> {
    let rows = starts.chunks(seqlen as usize);
    rows.flat_map(|row| row[from as usize..to as usize].to_vec()).collect()
}
