//! What can go wrong between ranks.

use std::fmt;
use std::time::Duration;
use tch::TchError;

/// Every failure of the ranks' work together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistError {
    /// An environment variable that cannot be used.
    #[error("{variable}={value}: {problem}")]
    Environment {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The port on which rank 0 is to be found is taken.
    #[error(
        "port {port} is in use by another process, so rank 0 cannot be found there: choose another MASTER_PORT for \
         all ranks ({message})"
    )]
    PortInUse {
        /// The port.
        port: u16,
        /// libtorch's words.
        message: String,
    },
    /// The store that all ranks meet at does not answer.
    #[error("rank {rank}: {keeper} does not answer at {host}:{port}, while {action}: {message}")]
    Store {
        /// Who asked.
        rank: usize,
        /// Who keeps the store.
        keeper: &'static str,
        /// Where it should be.
        host: String,
        /// Its port.
        port: u16,
        /// What was being done.
        action: String,
        /// libtorch's words.
        message: String,
    },
    /// Ranks that did not start, or did not come to where all meet.
    #[error("{} of {world_size} did not come within {} s: look for what they printed, or start them", ranks(missing), waited.as_secs_f64())]
    Missing {
        /// Their numbers.
        missing: Vec<usize>,
        /// How many ranks there should be.
        world_size: usize,
        /// How long they were waited for.
        waited: Duration,
    },
    /// Two processes say that they are the same rank.
    #[error(
        "another process is rank {rank} already ({other}): give every process a RANK of its own, or another MASTER_PORT to another program"
    )]
    Duplicate {
        /// The rank.
        rank: usize,
        /// What the other one says of itself.
        other: String,
    },
    /// A rank differs from this one in what has to be the same everywhere.
    #[error("rank {rank} has {what} {theirs}, rank {own_rank} has {ours}: start all ranks alike")]
    Mismatch {
        /// The other rank.
        rank: usize,
        /// This one.
        own_rank: usize,
        /// In what they differ.
        what: String,
        /// What the other one has.
        theirs: String,
        /// What this one has.
        ours: String,
    },
    /// An operation in which not all ranks took part.
    #[error("rank {rank}: {operation} (number {number}) failed: {}", blame(culprits, message))]
    Operation {
        /// The rank that says so.
        rank: usize,
        /// The operation.
        operation: &'static str,
        /// Its number, counted from 1; the same operation has the same number on every rank.
        number: u64,
        /// The ranks to blame, as far as can be told.
        culprits: Vec<Culprit>,
        /// libtorch's words.
        message: String,
    },
    /// An operand that an operation does not take.
    #[error("`{operand}` is {actual}, but {expected} is needed")]
    Operand {
        /// Its name in the documentation.
        operand: &'static str,
        /// What it is.
        actual: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A backend that is not to be had.
    #[error("the backend {name} is not to be had: {problem}")]
    Backend {
        /// Its name.
        name: &'static str,
        /// Why, and what to do.
        problem: &'static str,
    },
    /// A process could not be started or watched.
    #[error("rank {rank} cannot be {action}: {source}")]
    Process {
        /// The rank.
        rank: usize,
        /// What was tried.
        action: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// libtorch reported a failure that has nothing to do with other ranks.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// A result whose error is [`DistError`].
pub type Result<T, E = DistError> = std::result::Result<T, E>;

/// A rank that kept an operation from being done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Culprit {
    /// Its number.
    pub rank: usize,
    /// How it did.
    pub silence: Silence,
}

/// How a rank fails the others.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Silence {
    /// It gives no sign of life: killed, stopped, or its machine is gone.
    Gone {
        /// What it was last heard to do.
        last: String,
    },
    /// It said why it ended.
    Failed {
        /// Its words.
        reason: String,
    },
    /// It ended as if all were done.
    Left,
    /// It lives, but has not come to the operation.
    Behind {
        /// What it was last heard to do.
        last: String,
    },
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, silence } = self;
        match silence {
            Silence::Gone { last } => {
                write!(f, "rank {rank} gives no sign of life (last heard of {last})")
            }
            Silence::Failed { reason } => write!(f, "rank {rank} ended: {reason}"),
            Silence::Left => write!(f, "rank {rank} has ended, as if all were done"),
            Silence::Behind { last } => write!(f, "rank {rank} lives, but is still {last}"),
        }
    }
}

/// `rank 1`, or `ranks 1, 3`.
fn ranks(numbers: &[usize]) -> String {
    let list: Vec<String> = numbers.iter().map(usize::to_string).collect();
    let word = if numbers.len() == 1 { "rank" } else { "ranks" };
    format!("{word} {}", list.join(", "))
}

fn blame(culprits: &[Culprit], message: &str) -> String {
    if culprits.is_empty() {
        return format!("no rank could be found to blame ({message})");
    }
    let list: Vec<String> = culprits.iter().map(Culprit::to_string).collect();
    format!("{} ({message})", list.join("; "))
}
