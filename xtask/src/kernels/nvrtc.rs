//! NVRTC, NVIDIA's compiler from CUDA C++ to PTX, called as a library from a given place.
//!
//! `cudarc` binds it too, but only the one that the system's loader finds first.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::Library;

use super::files::{ARCH, Texts};
use super::toolchain::NVRTC;
use crate::error::{Error, Result};

/// `nvrtcProgram`.
type Program = *mut c_void;
/// `nvrtcResult`: an enum in C, and any number it may return is a valid one here.
type Code = c_int;

const SUCCESS: Code = 0;
/// The source is at fault, and the log says where.
const COMPILATION: Code = 6;

type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> Code;
type ErrorString = unsafe extern "C" fn(Code) -> *const c_char;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> Code;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Code;
type Destroy = unsafe extern "C" fn(*mut Program) -> Code;
type Size = unsafe extern "C" fn(Program, *mut usize) -> Code;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> Code;

/// The functions of the library that are needed.
#[derive(Debug)]
pub(crate) struct Nvrtc {
    path: PathBuf,
    error_string: ErrorString,
    create: Create,
    compile: Compile,
    destroy: Destroy,
    ptx_size: Size,
    ptx: Text,
    log_size: Size,
    log: Text,
    /// Holds the functions above in memory.
    _library: Library,
}

/// What became of one source.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// Absent when the source is refused.
    pub(crate) ptx: Option<String>,
    /// Errors and warnings with file and line; mostly empty.
    pub(crate) log: String,
}

impl Nvrtc {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let unfit = |error: libloading::Error| unusable(path, error.to_string());
        // SAFETY: the library is the pinned file; its initialisers have no precondition.
        let library = unsafe { Library::new(path) }.map_err(unfit)?;
        macro_rules! function {
            ($name:literal, $kind:ty) => {
                // SAFETY: the type is that of nvrtc.h, and the library is kept beside the pointer.
                *unsafe { library.get::<$kind>($name) }.map_err(unfit)?
            };
        }
        let version: Version = function!("nvrtcVersion", Version);
        let nvrtc = Self {
            path: path.to_path_buf(),
            error_string: function!("nvrtcGetErrorString", ErrorString),
            create: function!("nvrtcCreateProgram", Create),
            compile: function!("nvrtcCompileProgram", Compile),
            destroy: function!("nvrtcDestroyProgram", Destroy),
            ptx_size: function!("nvrtcGetPTXSize", Size),
            ptx: function!("nvrtcGetPTX", Text),
            log_size: function!("nvrtcGetProgramLogSize", Size),
            log: function!("nvrtcGetProgramLog", Text),
            _library: library,
        };
        let (mut major, mut minor) = (0, 0);
        // SAFETY: writes one integer through each of two pointers to one.
        nvrtc.succeed(unsafe { version(&raw mut major, &raw mut minor) })?;
        if !NVRTC.starts_with(&format!("{major}.{minor}.")) {
            return Err(unusable(path, format!("it is {major}.{minor}, and {NVRTC} is needed")));
        }
        Ok(nvrtc)
    }

    /// Compiles one unit. `name` is only what the log calls it: no file is read, so the result
    /// does not depend on where the sources lie.
    pub(crate) fn compile(&self, name: &str, source: &str, headers: &Texts) -> Result<Compiled> {
        let (name, source) = (self.c(name)?, self.c(source)?);
        let includes = headers.keys().map(|it| self.c(it)).collect::<Result<Vec<_>>>()?;
        let headers = headers.values().map(|it| self.c(it)).collect::<Result<Vec<_>>>()?;
        let architecture = format!("--gpu-architecture={ARCH}");
        let options = [
            &*architecture,
            "--std=c++17",
            "-default-device",
            "--fmad=true",
            // Else a header of the same name in the current folder would be read.
            "--no-source-include",
        ];
        let options = options.into_iter().map(|it| self.c(it)).collect::<Result<Vec<_>>>()?;

        let mut open = Open { nvrtc: self, program: ptr::null_mut() };
        let (texts, names, flags) = (pointers(&headers), pointers(&includes), pointers(&options));
        // SAFETY: all strings end with a zero and outlive the call, which copies them; both lists
        // are as long as it is told.
        self.succeed(unsafe {
            (self.create)(
                &raw mut open.program,
                source.as_ptr(),
                name.as_ptr(),
                texts.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            )
        })?;
        // SAFETY: the program was just created; the list is as long as it is told.
        let code = unsafe { (self.compile)(open.program, flags.len() as c_int, flags.as_ptr()) };
        let log = open.text(self.log_size, self.log)?.trim_end().to_owned();
        if code == COMPILATION {
            return Ok(Compiled { ptx: None, log });
        }
        self.succeed(code)?;
        Ok(Compiled { ptx: Some(open.text(self.ptx_size, self.ptx)?), log })
    }

    fn succeed(&self, code: Code) -> Result<()> {
        if code == SUCCESS {
            return Ok(());
        }
        // SAFETY: takes any number and returns a constant string that ends with a zero.
        let words = unsafe { CStr::from_ptr((self.error_string)(code)) };
        Err(unusable(&self.path, words.to_string_lossy().into_owned()))
    }

    fn c(&self, text: &str) -> Result<CString> {
        CString::new(text)
            .map_err(|_| unusable(&self.path, "a source holds a zero byte".to_owned()))
    }
}

fn unusable(path: &Path, reason: String) -> Error {
    Error::Nvrtc { path: path.to_path_buf(), reason }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).collect()
}

/// A program of the library, destroyed on every way out.
struct Open<'a> {
    nvrtc: &'a Nvrtc,
    program: Program,
}

impl Open<'_> {
    /// One of the texts a program has, by the function for its size and the one for itself.
    fn text(&self, size: Size, text: Text) -> Result<String> {
        let mut bytes = 0;
        // SAFETY: the program is alive; one integer is written through a pointer to one.
        self.nvrtc.succeed(unsafe { size(self.program, &raw mut bytes) })?;
        let mut buffer = vec![0_u8; bytes];
        // SAFETY: the buffer is as large as the library said it writes.
        self.nvrtc.succeed(unsafe { text(self.program, buffer.as_mut_ptr().cast()) })?;
        // With a zero at the end, which is no part of the text.
        let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(buffer.len());
        Ok(String::from_utf8_lossy(&buffer[..end]).into_owned())
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: the program is alive, and this is the last use of it.
            unsafe { (self.nvrtc.destroy)(&raw mut self.program) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_none_is_an_error_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("toolchain/lib/libnvrtc.so.12");
        let error = Nvrtc::load(&path).unwrap_err();
        assert!(matches!(error, Error::Nvrtc { .. }), "{error}");
        let remedy = error.remedy().unwrap();
        assert!(remedy.contains("toolchain and run"), "{remedy}");
    }
}
