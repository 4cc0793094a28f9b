//! TAP devices: what a host sends to its device is read here as whole frames, and the reverse.

use std::{
    ffi::{CString, c_int, c_short},
    fs::File,
    io,
    mem::size_of,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    thread,
};

use rustix::{
    fs::{Mode, OFlags, open},
    ioctl::{Opcode, Updater, ioctl, opcode},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// The device of each host.
pub const DEVICE: &str = "eth0";

/// `TUNSETIFF` of `linux/if_tun.h`.
const SET_INTERFACE: Opcode = opcode::write::<c_int>(b'T', 202);
/// `IFF_TAP`: frames, not packets.
const TAP: c_short = 0x0002;
/// `IFF_NO_PI`: nothing stands before a frame. `IFF_VNET_HDR` is not wanted either: without it the kernel splits what is
/// larger than the MTU and fills in checksums before it hands frames out, and checks those it gets.
const BARE: c_short = 0x1000;

/// `struct ifreq` of `linux/if.h`, as far as it is used here.
#[repr(C)]
struct Interface {
    name: [u8; 16],
    flags: c_short,
    /// The union that `flags` is a part of is as large as `struct ifmap`.
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Interface>() == 40, "struct ifreq has 40 bytes, and fewer where pointers have 4");

/// Makes the device of a host, whose network namespace is the file at `namespace`. It is gone when the descriptor is.
///
/// # Errors
/// When the namespace or `/dev/net/tun` is missing, without the right to make devices, or when the host has one already.
pub(crate) fn make(namespace: &Path) -> io::Result<OwnedFd> {
    let in_namespace = || {
        let namespace = File::open(namespace)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        // The device comes to be where this file is opened.
        let device = open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        attach(&device)?;
        Ok(device)
    };
    // A thread of its own, as the namespace is that of a thread.
    let made = thread::scope(|scope| scope.spawn(in_namespace).join().expect("making a device does not panic"));
    made.map_err(|error: io::Error| {
        let text = format!("cannot make the device {DEVICE} in {}: {error}", namespace.display());
        io::Error::new(error.kind(), text)
    })
}

#[allow(unsafe_code, reason = "no safe wrapper knows this ioctl")]
fn attach(device: &OwnedFd) -> io::Result<()> {
    let mut interface = Interface { name: [0; 16], flags: TAP | BARE, rest: [0; 22] };
    let name = CString::new(DEVICE)?.into_bytes_with_nul();
    interface.name[..name.len()].copy_from_slice(&name);
    // SAFETY: TUNSETIFF reads one `struct ifreq` and writes it back; `Interface` has its layout and is no smaller, its name ends
    // with a zero byte, and any bytes are valid for all of its fields.
    unsafe {
        let request = Updater::<SET_INTERFACE, Interface>::new(&mut interface);
        ioctl(device, request)?;
    }
    Ok(())
}
