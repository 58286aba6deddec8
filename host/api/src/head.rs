//! The head of a request: its first line and its headers.

use axum::extract::Request;

/// A request's head has at most this many bytes, and so has what is read or written at once.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;

/// Counts the bytes that came before the body.
pub(crate) fn head_bytes(request: &Request) -> usize {
    let uri = request.uri();
    let origin = uri.authority().map_or(0, |authority| authority.as_str().len())
        + uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let line = request.method().as_str().len() + origin + path;
    // A colon and a space, and the ends of lines.
    let headers =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    line + " HTTP/1.1\r\n".len() + headers.sum::<usize>() + 2
}
