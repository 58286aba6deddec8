//! Where the files of an archive are: in a folder, or in a bucket of an S3-compatible object store.

use std::fmt;
use std::path::PathBuf;

/// The scheme of the address of a bucket.
const SCHEME: &str = "s3://";

/// The shortest and the longest name of a bucket, in bytes
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>).
const BUCKET_BYTES: std::ops::RangeInclusive<usize> = 3..=63;

/// The longest prefix, in bytes. A key has 1,024 bytes at most, and the name of a file takes 120 of them.
const PREFIX_BYTES_MAX: usize = 512;

/// Where the files of an archive are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchivePlace {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A part of a bucket.
    Bucket(BucketPlace),
}

/// A part of a bucket of an S3-compatible object store. Its endpoint, region and credentials are not
/// part of it: they come from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketPlace {
    bucket: String,
    prefix: String,
}

/// A text that begins with `s3://` and is no address of a part of a bucket. It does not repeat the text,
/// because people write credentials into addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The bucket has a name that no bucket has.
    #[error(
        "the name of a bucket has 3 to 63 lower-case letters, digits, dots and hyphens, and no credentials \
         before it"
    )]
    Bucket,
    /// There is no prefix.
    #[error(
        "a prefix has to follow the bucket, because the files of each store need one of their own"
    )]
    NoPrefix,
    /// The prefix cannot be part of a key.
    #[error(
        "a prefix has at most {PREFIX_BYTES_MAX} letters, digits and . _ - / in it, and no empty part and \
         none of dots alone"
    )]
    Prefix,
}

impl ArchivePlace {
    /// Reads `s3://BUCKET/PREFIX`. Returns none when the text does not begin with `s3://`: it is the path
    /// of a folder then.
    ///
    /// # Errors
    /// When it begins so, and is no address of a part of a bucket.
    pub fn bucket(text: &str) -> Result<Option<Self>, PlaceError> {
        let Some(rest) = text.strip_prefix(SCHEME) else { return Ok(None) };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_bucket = BUCKET_BYTES.contains(&bucket.len())
            && bucket.bytes().all(|byte| is_name(byte) || matches!(byte, b'.' | b'-'))
            && bucket.bytes().next().is_some_and(is_name)
            && bucket.bytes().last().is_some_and(is_name);
        if !is_bucket {
            return Err(PlaceError::Bucket);
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if prefix.is_empty() {
            return Err(PlaceError::NoPrefix);
        }
        let is_part = |part: &str| {
            !part.bytes().all(|byte| byte == b'.')
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        };
        if prefix.len() > PREFIX_BYTES_MAX || !prefix.split('/').all(is_part) {
            return Err(PlaceError::Prefix);
        }
        Ok(Some(Self::Bucket(BucketPlace { bucket: bucket.to_owned(), prefix: prefix.to_owned() })))
    }

    /// Returns where a file of the archive is, as people name it.
    pub(crate) fn of(&self, file: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(file).display().to_string(),
            Self::Bucket(place) => format!("{place}/{file}"),
        }
    }
}

impl From<PathBuf> for ArchivePlace {
    fn from(folder: PathBuf) -> Self {
        Self::Folder(folder)
    }
}

impl fmt::Display for ArchivePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Bucket(place) => place.fmt(f),
        }
    }
}

impl BucketPlace {
    /// Returns the name of the bucket.
    pub(crate) fn name(&self) -> &str {
        &self.bucket
    }

    /// Returns what the keys of the files begin with, without the last `/`.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl fmt::Display for BucketPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.bucket, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn the_address_of_a_bucket_is_read_and_shown() {
        for text in ["s3://abc/p", "s3://my-bucket.eu/a/b_c/1.2", "s3://abc/p/"] {
            let place = ArchivePlace::bucket(text).unwrap().unwrap();
            assert_eq!(place.to_string(), text.trim_end_matches('/'));
            assert_eq!(place.of("x"), format!("{place}/x"));
        }
        for text in ["archive", "/s3/archive", "S3://abc/p", ""] {
            assert_eq!(ArchivePlace::bucket(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn what_is_no_part_of_a_bucket_is_refused_and_not_repeated() {
        let long = format!("s3://abc/{}", "p".repeat(PREFIX_BYTES_MAX + 1));
        for (text, error) in [
            ("s3://", PlaceError::Bucket),
            ("s3://ab/p", PlaceError::Bucket),
            ("s3://Upper/p", PlaceError::Bucket),
            ("s3://-abc/p", PlaceError::Bucket),
            ("s3://key:secret@bucket/p", PlaceError::Bucket),
            ("s3://abc", PlaceError::NoPrefix),
            ("s3://abc/", PlaceError::NoPrefix),
            ("s3://abc//p", PlaceError::Prefix),
            ("s3://abc/p//", PlaceError::Prefix),
            ("s3://abc/../p", PlaceError::Prefix),
            ("s3://abc/a b", PlaceError::Prefix),
            ("s3://abc/p?versionId=1", PlaceError::Prefix),
            (long.as_str(), PlaceError::Prefix),
        ] {
            assert_eq!(ArchivePlace::bucket(text), Err(error), "{text}");
        }
        assert!(!PlaceError::Bucket.to_string().contains("secret"));
    }
}
