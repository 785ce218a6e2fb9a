//! Tensors by name in safetensors files, read and written whole or not at all.

mod integrity;

use crate::atomic;
use integrity::Checksums;
use memmap2::Mmap;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Tensors by name, in the order of their names.
pub type Tensors = BTreeMap<String, Tensor>;

/// The text entries of a safetensors header.
pub type Metadata = HashMap<String, String>;

/// Why a weight file cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file cannot be opened or read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not a safetensors file, or not all of one, or not what was written.
    #[error("`{}` is not a whole safetensors file (at byte {offset}: {problem}): it is truncated, damaged or of another format", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage shows, in bytes from the start.
        offset: u64,
        /// What the parser met.
        problem: String,
    },
    /// The file cannot be written; whatever stood under its name before is still there.
    #[error("cannot write `{}`: {problem}; the previous file, if any, is untouched", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        problem: String,
    },
    /// A tensor has an element type that is not used here.
    #[error("`{name}` has element type {actual}, which is not supported: convert it to F32")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its element type.
        actual: String,
    },
    /// The tensors of a file are not those of the model.
    #[error("the weights do not fit the model: {0}")]
    Mismatch(Mismatch),
    /// libtorch reported a failure.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

/// How a set of tensors differs from a model's parameters.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Names, the shape in the file and the shape in the model.
    pub misshapen: Vec<(String, Vec<i64>, Vec<i64>)>,
    /// Parameters of the model that the file lacks.
    pub missing: Vec<String>,
    /// Tensors of the file that the model lacks.
    pub unexpected: Vec<String>,
}

impl Mismatch {
    /// How `tensors` differ from what is expected: shapes by name.
    pub(crate) fn between(tensors: &Tensors, expected: &BTreeMap<String, Vec<i64>>) -> Self {
        let mut mismatch = Self::default();
        for (name, shape) in expected {
            match tensors.get(name) {
                None => mismatch.missing.push(name.clone()),
                Some(tensor) if tensor.size() != *shape => {
                    mismatch.misshapen.push((name.clone(), tensor.size(), shape.clone()));
                }
                Some(_) => {}
            }
        }
        mismatch.unexpected =
            tensors.keys().filter(|name| !expected.contains_key(*name)).cloned().collect();
        mismatch
    }

    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.misshapen.is_empty() && self.missing.is_empty() && self.unexpected.is_empty()
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        for (name, file, model) in &self.misshapen {
            parts.push(format!("`{name}` is {file:?} in the file and {model:?} in the model"));
        }
        for (what, names) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !names.is_empty() {
                let listed = names.iter().map(|name| format!("`{name}`"));
                parts.push(format!("{what}: {}", listed.collect::<Vec<_>>().join(", ")));
            }
        }
        f.write_str(&parts.join("; "))
    }
}

/// A safetensors file, mapped into memory; a tensor is read when it is asked for.
#[derive(Debug)]
pub struct WeightFile {
    path: PathBuf,
    map: Mmap,
    metadata: Metadata,
}

impl WeightFile {
    /// Maps a file and checks that it is whole: its header describes exactly its bytes, and these are those of which it
    /// has checksums, if it has any.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let read = |source| WeightsError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        if !file.metadata().map_err(read)?.is_file() {
            return Err(read(io::Error::other("it is not a file")));
        }
        // SAFETY: the map is read-only; this program replaces weight files by renaming and never
        // writes into one, which is what memory mapping asks of its users.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        let tensors = parse(path, &map)?;
        let (_, header) = SafeTensors::read_metadata(&map).map_err(|e| damaged(path, &map, &e))?;
        let mut metadata = header.metadata().clone().unwrap_or_default();
        integrity::check(path, &map, &tensors, &mut metadata)?;
        Ok(Self { path: path.to_owned(), map, metadata })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text entries of the header.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Copies of the tensors whose names `select` maps to a new name.
    pub fn tensors(
        &self,
        select: impl Fn(&str) -> Option<String>,
    ) -> Result<Tensors, WeightsError> {
        let tensors = parse(&self.path, &self.map)?;
        let mut selected = Tensors::new();
        for (name, view) in tensors.iter() {
            let Some(new_name) = select(name) else { continue };
            let kind = kind_of(view.dtype()).ok_or_else(|| WeightsError::Dtype {
                name: name.to_owned(),
                actual: format!("{:?}", view.dtype()),
            })?;
            let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            selected.insert(new_name, Tensor::f_from_data_size(view.data(), &shape, kind)?);
        }
        Ok(selected)
    }
}

fn parse<'m>(path: &Path, map: &'m Mmap) -> Result<SafeTensors<'m>, WeightsError> {
    SafeTensors::deserialize(map).map_err(|error| damaged(path, map, &error))
}

fn damaged(path: &Path, map: &Mmap, error: &SafeTensorError) -> WeightsError {
    let offset = integrity::offset(error, map.len());
    WeightsError::Damaged { path: path.to_owned(), offset, problem: error.to_string() }
}

/// Copies every tensor into the parameter of its name.
///
/// Nothing is copied unless names and shapes agree exactly, both ways.
pub fn load_strict(parameters: &Tensors, tensors: &Tensors) -> Result<(), WeightsError> {
    let shapes = parameters.iter().map(|(name, p)| (name.clone(), p.size())).collect();
    let mismatch = Mismatch::between(tensors, &shapes);
    if !mismatch.is_empty() {
        return Err(WeightsError::Mismatch(mismatch));
    }
    tch::no_grad(|| {
        for (name, parameter) in parameters {
            parameter.shallow_clone().f_copy_(&tensors[name])?;
        }
        Ok(())
    })
}

/// Writes a safetensors file, with checksums, under a temporary name, syncs it and renames it.
///
/// After a failure, a crash or a power cut, `path` holds the old file or the new one, whole.
pub fn write(path: &Path, tensors: &Tensors, mut metadata: Metadata) -> Result<(), WeightsError> {
    let failed = |problem: String| WeightsError::Write { path: path.to_owned(), problem };
    let views: Vec<(&str, TensorBytes)> = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), TensorBytes::new(name, tensor)?)))
        .collect::<Result<_, WeightsError>>()?;
    let mut sums = Checksums::of_texts(&metadata);
    for (name, view) in &views {
        sums.add(name, &view.data());
    }
    sums.write(&mut metadata).map_err(|e| failed(e.to_string()))?;
    atomic::replace(path, |file| {
        safetensors::serialize_to_file(views, Some(metadata), file.path()).map_err(io::Error::other)
    })
    .map_err(|e| failed(e.to_string()))
}

/// A tensor for the serialiser; its bytes are copied one tensor at a time, as they are written.
struct TensorBytes {
    dtype: Dtype,
    shape: Vec<usize>,
    tensor: Tensor,
}

impl TensorBytes {
    fn new(name: &str, tensor: &Tensor) -> Result<Self, WeightsError> {
        let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
        let dtype = dtype_of(tensor.kind()).ok_or_else(|| WeightsError::Dtype {
            name: name.to_owned(),
            actual: format!("{:?}", tensor.kind()),
        })?;
        Ok(Self { dtype, shape: tensor.size().iter().map(|&n| n as usize).collect(), tensor })
    }
}

impl View for TensorBytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        self.tensor.copy_data_u8(&mut bytes, self.tensor.numel());
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

const KINDS: [(Dtype, Kind); 6] = [
    (Dtype::F32, Kind::Float),
    (Dtype::F64, Kind::Double),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::I64, Kind::Int64),
    (Dtype::I32, Kind::Int),
];

fn kind_of(dtype: Dtype) -> Option<Kind> {
    KINDS.iter().find(|(d, _)| *d == dtype).map(|(_, kind)| *kind)
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    KINDS.iter().find(|(_, k)| *k == kind).map(|(dtype, _)| *dtype)
}
