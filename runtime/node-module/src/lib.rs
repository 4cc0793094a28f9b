//! The one thing a waiting worker cannot do in JavaScript: enter the rules of the app it is given (`docs/adr/0019`).
//!
//! `enter(fd)` confines the calling thread, and with it all threads and processes that come of it, by the Landlock
//! ruleset that `fd` is, and closes that. The main thread runs all of an app's code and starts all that runs more of
//! it; those that V8 has by then for its own work stay outside.

use std::{io, os::raw::c_int, ptr};

use napi_sys::{
    Status, napi_callback_info, napi_create_function, napi_env, napi_get_cb_info, napi_get_value_int32,
    napi_set_named_property, napi_throw_error, napi_value,
};

/// What Node calls when it has loaded the module.
///
/// # Safety
/// For Node only: `env` and `exports` are its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn napi_register_module_v1(env: napi_env, exports: napi_value) -> napi_value {
    let mut function = ptr::null_mut();
    // SAFETY: Node's own handles, and a name that ends in NUL, whose length it finds by that.
    unsafe {
        let name = c"enter".as_ptr();
        if napi_create_function(env, name, -1, Some(enter), ptr::null_mut(), &mut function) == Status::napi_ok {
            // Without it `enter` is missing, which its caller sees.
            napi_set_named_property(env, exports, name, function);
        }
    }
    exports
}

/// `enter(fd)`; throws where the kernel refuses.
unsafe extern "C" fn enter(env: napi_env, info: napi_callback_info) -> napi_value {
    let (mut count, mut argument, mut fd) = (1, ptr::null_mut(), -1);
    // SAFETY: Node's own handles; there is room for one argument, which is `undefined` where there is none.
    unsafe {
        napi_get_cb_info(env, info, &mut count, &mut argument, ptr::null_mut(), ptr::null_mut());
        napi_get_value_int32(env, argument, &mut fd);
    }
    if let Err(error) = restrict(fd) {
        let message = format!("cannot enter the sandbox: {error}\0");
        // SAFETY: the message ends in NUL and outlives the call; without a code.
        unsafe { napi_throw_error(env, ptr::null(), message.as_ptr().cast()) };
    }
    // `undefined`.
    ptr::null_mut()
}

fn restrict(fd: c_int) -> io::Result<()> {
    // SAFETY: no memory is passed (landlock_restrict_self(2)).
    if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd, 0u32) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is a ruleset, as the kernel has just found, and nobody else uses it.
    unsafe { libc::close(fd) };
    Ok(())
}
