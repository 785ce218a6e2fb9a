//! The ranks of a program.

use crate::backend::Meeting;
use crate::environment::Environment;
use crate::error::{DistError, Result};
use crate::group::Group;
use std::time::Duration;

/// What carries the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// TCP between CPUs; tensors on GPUs go through the CPU.
    #[default]
    Gloo,
    /// NVIDIA's, between GPUs; feature `nccl`.
    ///
    /// Not tried on a GPU yet. By libtorch's source, [`Work::wait`](crate::Work::wait) holds up the calling thread and gives
    /// the error of an operation that fails or takes longer than [`Options::timeout`], because `TORCH_NCCL_BLOCKING_WAIT` is set
    /// to 1 unless it is set. With 0 the wait returns before the GPU is done, and a thread of libtorch's ends the process,
    /// without an error, about a minute after a failure.
    Nccl,
}

/// Whether this program can use [`Backend::Nccl`].
pub fn has_nccl() -> bool {
    Meeting::has_nccl()
}

/// How the ranks meet and how long they wait for one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What carries the tensors.
    pub backend: Backend,
    /// How long an operation may wait for the other ranks, and a start for all to be there. It must be longer than whatever
    /// one rank does alone.
    pub timeout: Duration,
    /// Between two signs of life of a rank.
    pub beat: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let (timeout, beat) = (Duration::from_mins(10), Duration::from_millis(500));
        Self { backend: Backend::default(), timeout, beat }
    }
}

/// The ranks of a program: all of them as one [`Group`], and the way to smaller ones.
///
/// Dropped, it tells the others that this rank has ended as it should; [`fail`](Self::fail) tells them otherwise.
#[derive(Debug)]
pub struct Dist {
    world: Group,
    /// `None` where there is one rank.
    meeting: Option<Meeting>,
}

impl Dist {
    /// One rank, alone.
    pub fn single() -> Self {
        Self { world: Group::single(), meeting: None }
    }

    /// The ranks that [`Environment::read`] tells of, once all of them are there; one rank where it tells of none.
    ///
    /// # Errors
    /// Within the timeout and a few seconds, if the environment makes no sense, the store's port is taken or rank 0 is not
    /// to be found, ranks do not start, or say different things of the number of ranks.
    pub fn from_env(options: &Options) -> Result<Self> {
        match Environment::read()? {
            Some(environment) => Self::meet(environment, options),
            None => Ok(Self::single()),
        }
    }

    /// The ranks of an environment, once all of them are there.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn meet(environment: Environment, options: &Options) -> Result<Self> {
        let (meeting, world) = Meeting::begin(environment, options)?;
        Ok(Self { world, meeting: Some(meeting) })
    }

    /// All ranks.
    pub fn world(&self) -> &Group {
        &self.world
    }

    /// The number of this rank among those of its machine: that of its GPU.
    pub fn local_rank(&self) -> usize {
        self.meeting.as_ref().map_or(0, Meeting::local_rank)
    }

    /// Whether this is the rank that writes what there must be one of.
    pub fn is_first(&self) -> bool {
        self.world.rank() == 0
    }

    /// The ranks cut into groups of `size` that follow one another: the group of this rank. Collective.
    ///
    /// # Errors
    /// [`DistError::Operand`] unless `size` divides the number of ranks.
    pub fn neighbours(&self, size: usize) -> Result<Group> {
        self.check_size(size)?;
        let first = self.world.rank() / size * size;
        self.group(&(first..first + size).collect::<Vec<_>>())
    }

    /// The ranks that have the same place in their groups of [`neighbours`](Self::neighbours) as this one. Collective.
    ///
    /// # Errors
    /// [`DistError::Operand`] unless `size` divides the number of ranks.
    pub fn counterparts(&self, size: usize) -> Result<Group> {
        self.check_size(size)?;
        let places = self.world.rank() % size..self.world.size();
        self.group(&places.step_by(size).collect::<Vec<_>>())
    }

    fn check_size(&self, size: usize) -> Result<()> {
        if size > 0 && self.world.size().is_multiple_of(size) {
            return Ok(());
        }
        let actual = format!("{size} of {} ranks", self.world.size());
        let expected = "a size that divides the number of ranks";
        Err(DistError::Operand { operand: "size", actual, expected })
    }

    /// A group of some ranks, this one among them, in ascending order.
    fn group(&self, members: &[usize]) -> Result<Group> {
        match &self.meeting {
            Some(meeting) if members.len() < self.world.size() => meeting.group(members),
            _ => Ok(self.world.clone()),
        }
    }

    /// Errs unless all ranks give the same value for what `what` names; the rank that differs is named. Collective.
    pub fn agree(&self, what: &str, value: &str) -> Result<()> {
        self.meeting.as_ref().map_or(Ok(()), |meeting| meeting.agree(what, value))
    }

    /// The value that rank 0 gives on a topic; those of the others are not looked at. Collective, though
    /// rank 0 does not wait.
    pub fn hear_first(&self, topic: &str, value: &str) -> Result<String> {
        match &self.meeting {
            Some(meeting) => meeting.hear_first(topic, value),
            None => Ok(value.to_owned()),
        }
    }

    /// Tells the other ranks that this one ends, and why.
    pub fn fail(&self, reason: &str) {
        if let Some(meeting) = &self.meeting {
            meeting.fail(reason);
        }
    }
}

impl Drop for Dist {
    fn drop(&mut self) {
        if let Some(meeting) = &self.meeting {
            if std::thread::panicking() {
                meeting.fail("a panic");
            }
            meeting.end();
        }
    }
}
