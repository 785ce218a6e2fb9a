//! Collective operations among ranks.

use crate::backend::{Link, Pending};
use crate::error::{DistError, Result};
use crate::traffic::{Counters, Traffic};
use std::sync::Arc;
use tch::Tensor;

/// How an all-reduce combines what the ranks have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// The sum, the same bits on every rank.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

/// Ranks that work together: all of a program's, or some. A clone is the same group.
///
/// Every operation is *collective*: all ranks of the group call it, in the same order, with tensors of the same shape and
/// kind: Gloo ends a process that is sent more than it expects. In a group of one rank every operation is done at once and
/// costs nothing.
#[derive(Debug, Clone)]
pub struct Group {
    rank: usize,
    /// The numbers of the members among all ranks.
    members: Arc<[usize]>,
    /// `None` in a group of one.
    link: Option<Arc<Link>>,
    counters: Arc<Counters>,
}

impl Group {
    /// The group of this process alone.
    pub fn single() -> Self {
        Self::new(0, &[0], None)
    }

    /// The group of `members`, of which this rank is number `rank`.
    pub(crate) fn new(rank: usize, members: &[usize], link: Option<Arc<Link>>) -> Self {
        Self { rank, members: members.into(), link, counters: Arc::default() }
    }

    /// The number of this rank in the group, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many ranks the group has.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The numbers that the members have among all ranks, in the group's order.
    pub fn members(&self) -> &[usize] {
        &self.members
    }

    /// What this rank has given to the group's operations so far.
    pub fn traffic(&self) -> Traffic {
        self.counters.read()
    }

    /// Replaces a tensor on every rank by the sum, the largest or the smallest of the ranks' elements.
    ///
    /// # Shapes
    /// `tensor`: any, contiguous; written in place
    pub fn all_reduce(&self, tensor: &Tensor, reduce: Reduce) -> Result<()> {
        self.begin_all_reduce(tensor, reduce)?.wait()
    }

    /// Begins an [`all_reduce`](Self::all_reduce); the tensor must not be touched before [`Work::wait`].
    pub fn begin_all_reduce(&self, tensor: &Tensor, reduce: Reduce) -> Result<Work> {
        contiguous("tensor", tensor)?;
        let Some(link) = &self.link else { return Ok(Work(None)) };
        self.counters.all_reduce.add(bytes(tensor));
        Ok(Work(Some(link.all_reduce(tensor, reduce)?)))
    }

    /// Replaces a tensor on every rank by that of rank `root` of the group.
    ///
    /// # Shapes
    /// `tensor`: any, contiguous; written in place
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<()> {
        contiguous("tensor", tensor)?;
        if root >= self.size() {
            let (operand, actual) = ("root", root.to_string());
            return Err(DistError::Operand { operand, actual, expected: "a rank of the group" });
        }
        let Some(link) = &self.link else { return Ok(()) };
        self.counters.broadcast.add(bytes(tensor));
        link.broadcast(tensor, root)?.wait()
    }

    /// The tensors of all ranks, one after the other.
    ///
    /// # Shapes
    /// `tensor`: any; returns [size, ..]
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Tensor> {
        let mut dims = vec![self.size() as i64];
        dims.extend(tensor.size());
        let own = tch::no_grad(|| tensor.f_detach()?.f_contiguous()?.f_view([-1]))?;
        let Some(link) = &self.link else { return Ok(own.f_view(dims.as_slice())?) };
        self.counters.all_gather.add(bytes(&own));
        let len = self.size() as i64 * own.size()[0];
        let gathered = Tensor::f_empty([len], (own.kind(), own.device()))?;
        link.all_gather(&gathered, &own)?.wait()?;
        Ok(gathered.f_view(dims.as_slice())?)
    }

    /// Waits until every rank of the group has come here.
    pub fn barrier(&self) -> Result<()> {
        let Some(link) = &self.link else { return Ok(()) };
        link.barrier()?.wait()
    }
}

/// An operation that goes on while this rank does something else.
#[derive(Debug)]
#[must_use = "an operation that is not waited for may fail unheard"]
pub struct Work(Option<Pending>);

impl Work {
    /// Waits for its end.
    pub fn wait(self) -> Result<()> {
        self.0.map_or(Ok(()), Pending::wait)
    }
}

fn contiguous(operand: &'static str, tensor: &Tensor) -> Result<()> {
    let (actual, expected) = match (tensor.defined(), tensor.defined() && tensor.is_contiguous()) {
        (true, true) => return Ok(()),
        (true, false) => {
            (format!("a view of strides {:?}", tensor.stride()), "a contiguous tensor")
        }
        (false, _) => ("undefined".to_owned(), "a tensor"),
    };
    Err(DistError::Operand { operand, actual, expected })
}

fn bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}
