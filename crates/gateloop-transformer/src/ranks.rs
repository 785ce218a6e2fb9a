//! The processes that train together, and which part of the work is whose.

use crate::config::{Config, ConfigError, DistConfig};
use crate::data::Share;
use crate::device::{DeviceError, device_of};
use gateloop_dist::{Backend, Dist, DistError, Environment, Group, Options, has_nccl};
use gateloop_nn::SequenceRanks;
use std::sync::Arc;
use std::time::Duration;
use tch::Device;

/// This process among those that train together. Ranks that follow one another share every sequence, as many of them as
/// `dist.sequence_ranks` says; such groups learn from other sequences each.
///
/// Dropped, it tells the others that this rank is done; [`fail`](Self::fail) tells them otherwise.
#[derive(Debug)]
pub struct Ranks {
    dist: Dist,
    /// The ranks that share a sequence, in the order of its parts.
    sequence: Arc<Group>,
    /// The ranks that have the same part of other sequences.
    data: Group,
}

/// Why the ranks of a run do not work together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RanksError {
    /// The ranks cannot be divided as the configuration wants it.
    #[error(
        "`dist.sequence_ranks` = {sequence_ranks}, but there are {ranks} ranks: it must divide their number"
    )]
    Division {
        /// As configured.
        sequence_ranks: usize,
        /// How many ranks there are.
        ranks: usize,
    },
    /// Parameters that should be the same are not.
    #[error(
        "after step {step} the parameters of {} are others than those of rank 0: a rank computes something else \
         (another build, a defect of its memory); go on from a checkpoint",
        if ranks.len() == 1 { format!("rank {}", ranks[0]) } else { format!("ranks {ranks:?}") }
    )]
    Diverged {
        /// Steps done.
        step: u64,
        /// The ranks that differ from rank 0.
        ranks: Vec<usize>,
    },
    /// The configuration cannot be written down to be compared.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The device of this rank is not to be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An operation of the ranks failed.
    #[error(transparent)]
    Dist(#[from] DistError),
}

impl Ranks {
    /// One process, alone.
    pub fn single() -> Self {
        Self { dist: Dist::single(), sequence: Arc::new(Group::single()), data: Group::single() }
    }

    /// Meets the ranks that the environment tells of; alone, if it tells of none.
    ///
    /// # Errors
    /// See [`Dist::from_env`]; and if `dist.sequence_ranks` does not divide the number of ranks, or the device is not to be
    /// had.
    pub fn from_env(config: &Config) -> Result<Self, RanksError> {
        match Environment::read()? {
            Some(environment) => Self::meet(environment, config),
            None => Ok(Self::single()),
        }
    }

    /// Meets the ranks of an environment.
    pub fn meet(environment: Environment, config: &Config) -> Result<Self, RanksError> {
        let Config { dist: DistConfig { sequence_ranks, backend, timeout_s, .. }, train, .. } =
            config;
        let (ranks, sequence_ranks) = (environment.world_size, *sequence_ranks);
        if !ranks.is_multiple_of(sequence_ranks) {
            return Err(RanksError::Division { sequence_ranks, ranks });
        }
        let nccl = match backend.as_str() {
            "auto" => {
                let device = device_of(&train.device, environment.local_rank)?;
                device != Device::Cpu && has_nccl()
            }
            name => name == "nccl",
        };
        let options = Options {
            backend: if nccl { Backend::Nccl } else { Backend::Gloo },
            timeout: Duration::from_secs(*timeout_s),
            ..Options::default()
        };
        let dist = Dist::meet(environment, &options)?;
        let sequence = Arc::new(dist.neighbours(sequence_ranks)?);
        let data = dist.counterparts(sequence_ranks)?;
        Ok(Self { dist, sequence, data })
    }

    /// How many processes there are.
    pub fn count(&self) -> usize {
        self.dist.world().size()
    }

    /// The number of this one.
    pub fn rank(&self) -> usize {
        self.dist.world().rank()
    }

    /// The number of this one among those of its machine.
    pub fn local_rank(&self) -> usize {
        self.dist.local_rank()
    }

    /// Whether this is the one that writes, prints and samples.
    pub fn is_first(&self) -> bool {
        self.dist.is_first()
    }

    /// All processes.
    pub fn world(&self) -> &Group {
        self.dist.world()
    }

    /// Those that share this one's sequences.
    pub fn sequence(&self) -> &Arc<Group> {
        &self.sequence
    }

    /// The same as layers take them; `None` where a sequence is not shared.
    pub fn slices(&self) -> Option<Arc<dyn SequenceRanks>> {
        (self.sequence.size() > 1).then(|| Arc::clone(&self.sequence) as Arc<dyn SequenceRanks>)
    }

    /// Those that have the same part of other sequences as this one.
    pub fn data(&self) -> &Group {
        &self.data
    }

    /// Which of the windows of a step are this one's.
    pub fn share(&self) -> Share {
        Share { index: self.data.rank(), of: self.data.size() }
    }

    /// Does what is better done once a machine before it is done again: fetching data that is not there yet.
    pub fn first_on_each_machine<T, E: From<RanksError>>(
        &self,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let wait = || self.world().barrier().map_err(RanksError::from);
        let goes_first = self.local_rank() == 0;
        if !goes_first {
            wait()?;
        }
        let done = work()?;
        if goes_first {
            wait()?;
        }
        Ok(done)
    }

    /// Errs unless all ranks are to train the same model on the same data in the same way.
    pub fn agree_on(&self, config: &Config, revision: &str) -> Result<(), RanksError> {
        if self.count() == 1 {
            return Ok(());
        }
        self.dist.agree("revision", revision)?;
        let entries = alike(config)?;
        Ok(self.dist.agree("configuration", &entries).map_err(first_difference)?)
    }

    /// Errs unless all ranks give the same value for what `what` names.
    pub fn agree(&self, what: &str, value: &str) -> Result<(), RanksError> {
        Ok(self.dist.agree(what, value)?)
    }

    /// What the first rank says on a topic.
    pub fn hear_first(&self, topic: &str, value: &str) -> Result<String, RanksError> {
        Ok(self.dist.hear_first(topic, value)?)
    }

    /// Tells the others that this one ends, and why.
    pub fn fail(&self, reason: &str) {
        self.dist.fail(reason);
    }
}

/// What must be alike on all ranks of a configuration: an entry a line, as in `train.lr = 0.1`.
fn alike(config: &Config) -> Result<String, ConfigError> {
    let mut config = config.clone();
    // Every rank may have its own machine.
    config.train.device = String::new();
    config.train.threads = 0;
    let table: toml::Table = config
        .to_toml()?
        .parse()
        .map_err(|error: toml::de::Error| ConfigError::Serialize { message: error.to_string() })?;
    let mut entries = Vec::new();
    for (section, value) in table {
        let toml::Value::Table(keys) = value else { continue };
        entries.extend(keys.iter().map(|(key, value)| format!("{section}.{key} = {value}")));
    }
    Ok(entries.join("\n"))
}

/// The same error, which says of two configurations only where they begin to differ.
fn first_difference(error: DistError) -> DistError {
    let DistError::Mismatch { rank, own_rank, what, theirs, ours } = error else { return error };
    // A key that is left out on one side ends its list earlier, or has another one in its place.
    let pairs = theirs.lines().map(Some).chain([None]).zip(ours.lines().map(Some).chain([None]));
    let (theirs, ours) = pairs
        .into_iter()
        .find(|(theirs, ours)| theirs != ours)
        .map_or((None, None), |(theirs, ours)| (theirs, ours));
    let said = |entry: Option<&str>| entry.unwrap_or("nothing more").to_owned();
    DistError::Mismatch {
        rank,
        own_rank,
        what: format!("another {what}:"),
        theirs: said(theirs),
        ours: said(ours),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;

    fn entries(overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        alike(&Config::from_toml_str("", "a test", &overrides).unwrap()).unwrap()
    }

    fn said(theirs: &[&str], ours: &[&str]) -> String {
        let (rank, own_rank, what) = (1, 0, "configuration".to_owned());
        let (theirs, ours) = (entries(theirs), entries(ours));
        first_difference(DistError::Mismatch { rank, own_rank, what, theirs, ours }).to_string()
    }

    #[test]
    fn what_may_differ_is_not_compared() {
        assert_eq!(entries(&["train.device=cpu", "train.threads=2"]), entries(&[]));
        assert_ne!(entries(&["train.lr=0.1"]), entries(&[]));
        assert_ne!(entries(&["dist.shard_optimizer=true"]), entries(&[]));
    }

    #[test]
    fn the_entry_that_differs_is_named() {
        let text = said(&["train.lr=0.1"], &["train.lr=0.2"]);
        assert!(
            text.starts_with(
                "rank 1 has another configuration: train.lr = 0.1, rank 0 has train.lr = 0.2"
            ),
            "{text}"
        );
        let text = said(&[], &["data.train_bytes=5"]);
        assert!(text.contains("rank 0 has data.train_bytes = 5"), "{text}");
    }

    #[test]
    fn one_process_needs_nobody() {
        let ranks = Ranks::single();
        assert_eq!((ranks.count(), ranks.rank(), ranks.is_first()), (1, 0, true));
        assert_eq!(ranks.share(), Share::default());
        ranks.agree_on(&Config::default(), "any").unwrap();
        assert_eq!(ranks.hear_first("word", "own").unwrap(), "own");
        assert_eq!(ranks.first_on_each_machine(|| Ok::<_, RanksError>(3)).unwrap(), 3);
    }
}
