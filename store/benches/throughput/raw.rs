//! The raw transfers: the same bytes through the object store's client alone.

use std::{fs, path::Path as FilePath, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    GetResultPayload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, local::LocalFileSystem,
    parse_url_opts, path::Path,
};
use url::Url;

use crate::Result;

/// A client with the same settings as Whimbrel's.
pub(crate) struct Raw {
    objects: Arc<dyn ObjectStore>,
    root: Path,
}

impl Raw {
    pub(crate) fn open(uri: &str, environment: &[(String, String)]) -> Result<Self> {
        if !uri.contains("://") {
            fs::create_dir_all(uri)?;
            let folder = LocalFileSystem::new_with_prefix(FilePath::new(uri))?.with_fsync(true);
            return Ok(Self { objects: Arc::new(folder), root: Path::default() });
        }
        let url = Url::parse(uri)?;
        let mut options: Vec<(String, String)> =
            environment.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        let more = [("allow_http", "true"), ("aws_unsigned_payload", "true"), ("timeout", "1 hour")];
        options.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let (objects, root) = parse_url_opts(&url, options)?;
        Ok(Self { objects: objects.into(), root })
    }

    fn at(&self, folder: &str, index: usize) -> Path {
        self.root.clone().join(folder).join(index.to_string())
    }

    pub(crate) async fn put(
        &self,
        folder: &str,
        bytes: &Bytes,
        chunk: usize,
        at_a_time: usize,
    ) -> Result<()> {
        let chunks: Vec<Bytes> = bytes.chunks(chunk).map(|chunk| bytes.slice_ref(chunk)).collect();
        let puts = chunks.into_iter().enumerate().map(|(index, chunk)| async move {
            let (at, options) = (self.at(folder, index), PutOptions::from(PutMode::Create));
            self.objects.put_opts(&at, PutPayload::from(chunk), options).await.map(|_| ())
        });
        Ok(stream::iter(puts).buffer_unordered(at_a_time).try_collect().await?)
    }

    /// Reads and discards. A restore hashes the bytes and copies them to their tensors besides.
    pub(crate) async fn get(
        &self,
        folder: &str,
        bytes: &Bytes,
        chunk: usize,
        at_a_time: usize,
    ) -> Result<()> {
        let gets = (0..bytes.len().div_ceil(chunk)).map(|index| async move {
            let found = self.objects.get(&self.at(folder, index)).await?;
            // A file is read fastest in one piece; a body from a socket need not be assembled.
            if matches!(found.payload, GetResultPayload::File(..)) {
                return Ok(found.bytes().await?.len());
            }
            let (mut body, mut length) = (found.into_stream(), 0);
            while let Some(part) = body.try_next().await? {
                length += part.len();
            }
            Ok::<_, object_store::Error>(length)
        });
        let gets = stream::iter(gets).buffer_unordered(at_a_time);
        let read = gets.try_fold(0, async |sum, length| Ok(sum + length)).await?;
        if read == bytes.len() { Ok(()) } else { Err("raw bytes are missing".into()) }
    }

    pub(crate) async fn clear(&self, folder: &str) -> Result<()> {
        let under = self.root.clone().join(folder);
        let names: Vec<Path> =
            self.objects.list(Some(&under)).map_ok(|found| found.location).try_collect().await?;
        let deleted = self.objects.delete_stream(stream::iter(names.into_iter().map(Ok)).boxed());
        deleted.try_for_each(async |_| Ok(())).await?;
        Ok(())
    }
}
