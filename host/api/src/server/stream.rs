//! The stream of a connection. It fails when its peer lets the host wait for too long.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until};

use crate::pace::Pace;
use crate::server::activity::Activity;

/// A stream with limits of time. What the connection does limits the time for heads of requests; the pace of the
/// peer limits the time for answers.
pub(crate) struct TimedStream {
    stream: TcpStream,
    activity: Arc<Activity>,
    reading: Option<Pin<Box<Sleep>>>,
    writing: Pace,
}

impl TimedStream {
    pub(crate) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity, reading: None, writing: Pace::default() }
    }

    /// Is ready when bytes should have come by now.
    fn poll_read_time(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.activity.read_deadline() else { return Poll::Pending };
        let sleep = self.reading.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // One that ends earlier is left as it is until then: most requests come before.
        if sleep.is_elapsed() || sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn written(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.activity.sends(written.is_pending());
        match &written {
            Poll::Ready(Ok(bytes)) => self.writing.moved(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if self.writing.poll_used_up(context).is_ready() {
                    let error = io::Error::new(ErrorKind::TimedOut, "the answer is not read");
                    return Poll::Ready(Err(error));
                }
            }
        }
        written
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        match &read {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => self.activity.was_read(),
            Poll::Ready(_) => {}
            Poll::Pending => {
                if self.poll_read_time(context).is_ready() {
                    let error = io::Error::new(ErrorKind::TimedOut, "no request came");
                    return Poll::Ready(Err(error));
                }
            }
        }
        read
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
