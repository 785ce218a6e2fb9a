//! Arrays in NumPy's formats: by name in a `.npz`, one after the other in what
//! `equinox.tree_serialise_leaves` writes.

use super::ExchangeError;
use crate::atomic;
use crate::weights::Tensors;
use npyz::{NpyFile, Order, TypeChar, WriterBuilder};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use tch::{Kind, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// The arrays of a `.npz`, by name.
pub(super) fn read_npz(path: &Path) -> Result<Tensors, ExchangeError> {
    let damaged = |error: zip::result::ZipError| array_error(path, "list", &error.to_string());
    let mut archive = ZipArchive::new(open(path)?).map_err(damaged)?;
    if archive.file_names().flatten().any(|name| name.ends_with("data.pkl")) {
        return Err(ExchangeError::Pickle { path: path.to_owned() });
    }
    let mut tensors = Tensors::new();
    for index in 0..archive.len() {
        let file = archive.by_index(index).map_err(damaged)?;
        let file_name = file.name().map_err(damaged)?.into_owned();
        let Some(name) = npyz::npz::array_name_from_file_name(&file_name) else { continue };
        let tensor = read_array(file).map_err(|problem| array_error(path, name, &problem))?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

/// The arrays of a file that holds one after the other.
pub(super) fn read_sequence(path: &Path) -> Result<Vec<Tensor>, ExchangeError> {
    let mut reader = open(path)?;
    let mut tensors = Vec::new();
    loop {
        let rest = reader.fill_buf().map_err(|source| io_error("read", path, source))?;
        if rest.is_empty() {
            return Ok(tensors);
        }
        let number = tensors.len().to_string();
        let tensor =
            read_array(&mut reader).map_err(|problem| array_error(path, &number, &problem))?;
        tensors.push(tensor);
    }
}

/// Writes arrays by name.
pub(super) fn write_npz(path: &Path, tensors: &Tensors) -> Result<(), ExchangeError> {
    let fill = |file: &mut dyn WriteSeek| -> io::Result<()> {
        let mut archive = ZipWriter::new(file);
        // As `numpy.savez` does; large arrays need the larger headers.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(true);
        for (name, tensor) in tensors {
            let name = npyz::npz::file_name_from_array_name(name);
            archive.start_file(name, options).map_err(io::Error::other)?;
            write_array(&mut archive, tensor)?;
        }
        archive.finish().map_err(io::Error::other)?;
        Ok(())
    };
    atomic::replace(path, |file| fill(file.as_file_mut()))
        .map_err(|source| io_error("write", path, source))
}

/// Writes arrays one after the other.
pub(super) fn write_sequence(path: &Path, tensors: &[&Tensor]) -> Result<(), ExchangeError> {
    atomic::replace(path, |file| {
        let mut writer = BufWriter::new(file.as_file_mut());
        for tensor in tensors {
            write_array(&mut writer, tensor)?;
        }
        writer.flush()
    })
    .map_err(|source| io_error("write", path, source))
}

trait WriteSeek: Write + io::Seek {}
impl<W: Write + io::Seek> WriteSeek for W {}

fn read_array(reader: impl Read) -> Result<Tensor, String> {
    let file = NpyFile::new(reader).map_err(|error| error.to_string())?;
    let mut shape: Vec<i64> = file.shape().iter().map(|&n| n as i64).collect();
    let (is_fortran, dtype) = (file.order() == Order::Fortran, file.dtype());
    let read = |error: io::Error| error.to_string();
    let flat = match &dtype {
        npyz::DType::Plain(plain) if plain.type_char() == TypeChar::Float => {
            match plain.size_field() {
                4 => Tensor::f_from_slice(&file.into_vec::<f32>().map_err(read)?),
                8 => Tensor::f_from_slice(&file.into_vec::<f64>().map_err(read)?),
                _ => return Err(wrong_dtype(&dtype)),
            }
        }
        _ => return Err(wrong_dtype(&dtype)),
    };
    if is_fortran {
        shape.reverse();
    }
    let tensor = flat.and_then(|flat| flat.f_reshape(&shape)).map_err(|error| error.to_string())?;
    if !is_fortran {
        return Ok(tensor);
    }
    let axes: Vec<i64> = (0..shape.len() as i64).rev().collect();
    tensor.f_permute(axes).and_then(|t| t.f_contiguous()).map_err(|error| error.to_string())
}

fn wrong_dtype(dtype: &npyz::DType) -> String {
    format!("its element type is {}; convert it to float32 or float64", dtype.descr())
}

fn write_array(writer: &mut impl Write, tensor: &Tensor) -> io::Result<()> {
    let shape: Vec<u64> = tensor.size().iter().map(|&n| n as u64).collect();
    let flat = tensor.f_detach().and_then(|t| t.f_contiguous()?.f_view(-1));
    let flat = flat.map_err(io::Error::other)?;
    if tensor.kind() == Kind::Double {
        let values = Vec::<f64>::try_from(&flat).map_err(io::Error::other)?;
        write_values(writer, &shape, values)
    } else {
        let flat = flat.f_to_kind(Kind::Float).map_err(io::Error::other)?;
        let values = Vec::<f32>::try_from(&flat).map_err(io::Error::other)?;
        write_values(writer, &shape, values)
    }
}

fn write_values<T: npyz::AutoSerialize>(
    writer: &mut impl Write,
    shape: &[u64],
    values: Vec<T>,
) -> io::Result<()> {
    let mut npy =
        npyz::WriteOptions::new().default_dtype().shape(shape).writer(writer).begin_nd()?;
    npy.extend(values)?;
    npy.finish()
}

fn open(path: &Path) -> Result<BufReader<File>, ExchangeError> {
    File::open(path).map(BufReader::new).map_err(|source| io_error("read", path, source))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> ExchangeError {
    ExchangeError::Io { action, path: path.to_owned(), source }
}

fn array_error(path: &Path, array: &str, problem: &str) -> ExchangeError {
    let (array, problem) = (array.to_owned(), problem.to_owned());
    ExchangeError::Array { path: path.to_owned(), array, problem }
}
