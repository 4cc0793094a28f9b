//! The task that moves a channel's bytes and fires its deadlines.

use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fnmesh_invoke::{Error, Failure};
use tokio::{
    io::AsyncWrite,
    net::UnixStream,
    time::{Sleep, sleep},
};
use tokio_util::io::poll_read_buf;

use super::{Channel, payload, response_head, slot::reply};
use crate::{
    logs,
    worker::{
        code,
        frame::{self, Decoded, Frame, FrameError, Header, Kind},
    },
};

/// How often deadlines are looked at while calls are in flight; a timeout is late by at most this.
pub(super) const SWEEP: Duration = Duration::from_millis(20);
/// Read at once; larger frames grow the buffer to their own size.
const READ_BYTES: usize = 64 * 1024;
/// From this size on a body is handed over with the read buffer instead of being copied out of it.
const MOVE_BYTES: usize = 64 * 1024;
/// How long the instance's task may take to say how the process ended.
const EXIT_WAIT: Duration = Duration::from_secs(2);

/// Drives `channel` over `stream` until either end closes it; every call still in flight then gets
/// [`Error::InstanceLost`]. `max_frame_bytes` limits what the worker may send at once.
pub(crate) async fn drive(channel: Rc<Channel>, stream: UnixStream, max_frame_bytes: usize, grace: Duration) {
    let mut driver = Driver {
        channel: &channel,
        stream,
        input: Vec::with_capacity(READ_BYTES),
        max_frame_bytes,
        grace,
        sweep: None,
    };
    let end = tokio::select! {
        biased;
        end = poll_fn(|cx| driver.poll(cx)) => end,
        // A process the worker left behind may hold its end open: what is there to read is all there will be.
        _ = channel.instance.exited() => poll_fn(|cx| Poll::Ready(match driver.poll_read(cx) {
            Poll::Ready(end) => end,
            Poll::Pending => End::Closed,
        })).await,
    };
    drop(driver);
    if let End::Unreadable(error) = &end {
        channel.instance.condemn(format!("its worker sent a frame that cannot be read: {error}"));
    }
    channel.state.borrow_mut().closed = true;
    // The reason is known only once the process has been waited for.
    let reason = match tokio::time::timeout(EXIT_WAIT, channel.instance.exited()).await {
        Ok(reason) => reason,
        Err(_) => "its worker closed the channel".to_owned(),
    };
    channel.fail_all(&reason);
}

/// Why a channel ended.
enum End {
    /// The worker closed it, or was killed.
    Closed,
    /// The worker broke the protocol.
    Unreadable(FrameError),
}

struct Driver<'a> {
    channel: &'a Rc<Channel>,
    stream: UnixStream,
    input: Vec<u8>,
    max_frame_bytes: usize,
    grace: Duration,
    /// Armed while calls are in flight.
    sweep: Option<Pin<Box<Sleep>>>,
}

impl Driver<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.note_waker(cx);
        self.poll_sweep(cx);
        // Reading first frees slots and lets woken callers add to this tick's write.
        if let Poll::Ready(end) = self.poll_read(cx) {
            return Poll::Ready(end);
        }
        match self.poll_write(cx) {
            // What the worker sent before it closed is still to be read: the read side ends the channel.
            Poll::Ready(Ok(())) | Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }

    fn note_waker(&self, cx: &Context<'_>) {
        let mut state = self.channel.state.borrow_mut();
        state.driver_woken = false;
        match &mut state.driver {
            Some(waker) => waker.clone_from(cx.waker()),
            None => state.driver = Some(cx.waker().clone()),
        }
    }

    fn poll_sweep(&mut self, cx: &mut Context<'_>) {
        if self.sweep.is_none() && !self.channel.state.borrow().slots.is_empty() {
            self.sweep = Some(Box::pin(sleep(SWEEP)));
        }
        while let Some(timer) = &mut self.sweep {
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
            if self.channel.sweep(Instant::now(), self.grace) {
                timer.as_mut().reset(tokio::time::Instant::now() + SWEEP);
            } else {
                self.sweep = None;
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut state = self.channel.state.borrow_mut();
        while state.written < state.out.len() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &state.out[state.written..]))?;
            state.written += count;
        }
        state.written = 0;
        if state.out.capacity() > READ_BYTES * 4 {
            state.out = Vec::new()
        } else {
            state.out.clear()
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if self.input.capacity() == self.input.len() {
                self.input.reserve(READ_BYTES);
            }
            if !matches!(ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input)), Ok(1..)) {
                return Poll::Ready(End::Closed);
            }
            if let Err(error) = self.take_frames() {
                return Poll::Ready(End::Unreadable(error));
            }
        }
    }

    /// Handles every whole frame of the input and keeps the rest.
    fn take_frames(&mut self) -> Result<(), FrameError> {
        let mut start = 0;
        loop {
            match frame::decode(&self.input[start..], self.max_frame_bytes)? {
                Decoded::Incomplete(needed) => {
                    self.input.drain(..start);
                    self.input.reserve(needed.saturating_sub(self.input.len()));
                    return Ok(());
                }
                Decoded::Frame(found) if found.body.len() < MOVE_BYTES => {
                    let end = start + found.len();
                    self.channel.receive(found, Bytes::copy_from_slice(found.body));
                    start = end;
                }
                Decoded::Frame(found) => {
                    let (length, header) = (found.len(), found.header);
                    let body_start = start + length - found.body.len();
                    let meta = found.meta.to_vec();
                    let rest = self.input.split_off(start + length);
                    let whole = Bytes::from(mem::replace(&mut self.input, rest));
                    self.channel.receive(Frame { header, meta: &meta, body: &[] }, whole.slice(body_start..));
                    start = 0;
                }
            }
        }
    }
}

impl Channel {
    /// One frame from the worker; `body` is its body.
    fn receive(&self, frame: Frame<'_>, body: Bytes) {
        let header = frame.header;
        let mut state = self.state.borrow_mut();
        match header.kind {
            Kind::Ping => return state.send(Header::new(Kind::Pong, header.id)),
            // Version 1 of the protocol: functions do not call others through the node.
            Kind::Invoke => return state.refuse(header.id),
            _ => {}
        }
        let Some(slot) = state.slot(header.id).filter(|slot| slot.is_running()) else {
            if header.kind == Kind::Log {
                drop(state);
                logs::app_log(self.instance.pool(), None, header.aux, &body);
            }
            return;
        };
        match header.kind {
            Kind::Log => {
                let id = slot.id;
                drop(state);
                logs::app_log(self.instance.pool(), Some(id), header.aux, &body);
            }
            Kind::Chunk => match response_head(frame.meta) {
                Ok(head) => slot.chunk(head, payload(header.format, body)),
                Err(error) => slot.caller_error(Error::internal(format!("unreadable response head: {error}"))),
            },
            Kind::Result | Kind::Error => {
                let abandoned = slot.is_abandoned();
                match (header.kind, response_head(frame.meta)) {
                    (Kind::Error, _) => slot.worker_error(call_error(header.aux, &body)),
                    (_, Ok(head)) => slot.result(reply(head, payload(header.format, body))),
                    (_, Err(error)) => slot.worker_error(Error::internal(format!("unreadable response head: {error}"))),
                }
                self.worker_done(&mut state, header.id, abandoned);
            }
            _ => {}
        }
    }

    fn fail_all(&self, reason: &str) {
        let mut state = self.state.borrow_mut();
        let running: Vec<u32> =
            state.slots.iter().filter(|(_, slot)| slot.is_running()).map(|(index, _)| index as u32 + 1).collect();
        for id in running {
            let slot = state.slot(id).expect("listed above");
            let (abandoned, function) = (slot.is_abandoned(), slot.function.id.clone());
            slot.worker_error(Error::InstanceLost { function, reason: reason.to_owned() });
            self.worker_lost(&mut state, id, abandoned);
        }
    }
}

/// The error a worker's error frame stands for.
fn call_error(code: u16, body: &[u8]) -> Error {
    let failure: Failure = match serde_json::from_slice(body) {
        Ok(failure) => failure,
        Err(error) => return Error::internal(format!("unreadable error frame: {error}")),
    };
    match code {
        code::INVALID_INPUT => Error::invalid(failure.message),
        code::FUNCTION_FAILED => Error::FunctionFailed(Box::new(failure)),
        code::CANCELLED => Error::internal("the worker dropped the call"),
        _ => Error::internal(failure.to_string()),
    }
}
