//! In place of c10d, where the feature `c10d` is off: there are never other ranks.

use crate::dist::Options;
use crate::environment::Environment;
use crate::error::{DistError, Result};
use crate::group::{Group, Reduce};
use std::sync::Arc;
use tch::Tensor;

/// A meeting of ranks that never takes place.
#[derive(Debug)]
pub(crate) enum Meeting {}

/// A connection that is never made.
#[derive(Debug)]
pub(crate) enum Link {}

/// An operation that is never begun.
#[derive(Debug)]
pub(crate) enum Pending {}

impl Meeting {
    pub(crate) fn has_nccl() -> bool {
        false
    }

    pub(crate) fn begin(_: Environment, _: &Options) -> Result<(Self, Group)> {
        let problem = "this program was built without it; build with the feature `dist`";
        Err(DistError::Backend { name: "c10d", problem })
    }

    pub(crate) fn local_rank(&self) -> usize {
        match *self {}
    }

    pub(crate) fn group(&self, _: &[usize]) -> Result<Group> {
        match *self {}
    }

    pub(crate) fn agree(&self, _: &str, _: &str) -> Result<()> {
        match *self {}
    }

    pub(crate) fn hear_first(&self, _: &str, _: &str) -> Result<String> {
        match *self {}
    }

    pub(crate) fn fail(&self, _: &str) {
        match *self {}
    }

    pub(crate) fn end(&self) {
        match *self {}
    }
}

impl Link {
    pub(crate) fn all_reduce(self: &Arc<Self>, _: &Tensor, _: Reduce) -> Result<Pending> {
        match **self {}
    }

    pub(crate) fn broadcast(self: &Arc<Self>, _: &Tensor, _: usize) -> Result<Pending> {
        match **self {}
    }

    pub(crate) fn all_gather(self: &Arc<Self>, _: &Tensor, _: &Tensor) -> Result<Pending> {
        match **self {}
    }

    pub(crate) fn barrier(self: &Arc<Self>) -> Result<Pending> {
        match **self {}
    }
}

impl Pending {
    pub(crate) fn wait(self) -> Result<()> {
        match self {}
    }
}
