//! What a run writes into its folder, by the one process that writes there.

use super::lock::FolderLock;
use super::{RunFolder, TrainError};
use crate::config::Config;
use crate::metrics::{self, EventWriter, MetricsError, MetricsWriter, Record, plot};

/// The records and pictures of a run, and the lock on its folder.
#[derive(Debug)]
pub(super) struct Output {
    folder: RunFolder,
    _lock: FolderLock,
    metrics: MetricsWriter,
    tensorboard: Option<EventWriter>,
}

impl Output {
    /// Of a run that begins.
    pub(super) fn create(
        (folder, lock): (RunFolder, FolderLock),
        config: &Config,
    ) -> Result<Self, TrainError> {
        let metrics = MetricsWriter::create(folder.metrics())?;
        Self::new((folder, lock), config, metrics)
    }

    /// Of a run that goes on from a step. What was recorded of later ones will be done, and recorded, again.
    pub(super) fn append(
        (folder, lock): (RunFolder, FolderLock),
        config: &Config,
        step: u64,
    ) -> Result<Self, TrainError> {
        metrics::truncate_after(folder.metrics(), step)?;
        let metrics = MetricsWriter::append(folder.metrics())?;
        folder.write_config(config)?;
        Self::new((folder, lock), config, metrics)
    }

    fn new(
        (folder, lock): (RunFolder, FolderLock),
        config: &Config,
        metrics: MetricsWriter,
    ) -> Result<Self, TrainError> {
        let tensorboard = config.train.tensorboard.then(|| {
            // What was recorded by earlier parts of the run, and not what a crash took back.
            EventWriter::create(folder.tensorboard(), &metrics::read(folder.metrics())?)
        });
        Ok(Self { tensorboard: tensorboard.transpose()?, folder, _lock: lock, metrics })
    }

    pub(super) fn record(&mut self, record: &Record) -> Result<(), TrainError> {
        self.metrics.write(record)?;
        if let Some(tensorboard) = &mut self.tensorboard {
            tensorboard.write(record)?;
        }
        Ok(())
    }

    /// Draws what has been recorded so far.
    pub(super) fn plot(&self) -> Result<(), TrainError> {
        let records = metrics::read(self.folder.metrics())?;
        let run = plot::Run { name: "", records: &records };
        let title = self.folder.path().display().to_string();
        for extension in ["svg", "png"] {
            let loss = self.folder.plot().with_extension(extension);
            let gates = self.folder.gates_plot().with_extension(extension);
            for drawn in [
                plot::loss_curve(&[run], plot::Axis::Step, &title, loss),
                plot::gate_memory(&records, &title, gates),
            ] {
                match drawn {
                    // A run of which nothing was recorded has no picture, and that is as was asked for.
                    Err(MetricsError::NothingToDraw { .. } | MetricsError::NoGates { .. }) => {}
                    result => result?,
                }
            }
        }
        Ok(())
    }
}
