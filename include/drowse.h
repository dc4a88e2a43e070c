/* SPDX-License-Identifier: Apache-2.0
 *
 * drowse: GPU memory by tag, and tags that can be put to sleep.
 *
 * A heap owns memory on one device. Every allocation carries a tag, taken from the calling thread's stack of frames. A tag that
 * is put to sleep gives its physical pages back to the device and keeps its addresses; its contents wait in host memory or are
 * discarded. After waking every pointer into it is valid again.
 *
 * Unless a function says otherwise: sizes and offsets are bytes; every function may be called from any thread at any time; none
 * is async-signal-safe; strings are UTF-8, are copied when given and belong to the library when returned; a failed call changes
 * nothing and leaves its reason to drowse_last_error() of the calling thread; the calling thread's current CUcontext is the same
 * after the call as before it; nothing is ever printed; a function that calls the driver may fail with DROWSE_ERR_DRIVER,
 * DROWSE_ERR_DEVICE_LOST or, where the driver has no memory for what it needs itself, DROWSE_ERR_NO_DEVICE_MEMORY, whether that
 * is said of it or not. A heap must not be used in a forked child of the process that opened it.
 */
#ifndef DROWSE_H
#define DROWSE_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DROWSE_VERSION_MAJOR 0
#define DROWSE_VERSION_MINOR 1
#define DROWSE_VERSION_PATCH 0

#if defined(__GNUC__)
#define DROWSE_API __attribute__((visibility("default")))
#define DROWSE_CHECKED __attribute__((warn_unused_result))
#else
#error "drowse.h needs a compiler with GNU attributes: gcc or clang"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- errors ---------------------------------------------------------------------------------------------------------------- */

/* What a call returns. Errors are negative; a value never changes its meaning. Since 0.1. */
typedef enum drowse_status {
  DROWSE_OK = 0,
  DROWSE_ERR_INVALID = -1,          /* a bad argument */
  DROWSE_ERR_NO_DEVICE = -2,        /* no such device, or no driver */
  DROWSE_ERR_NO_DEVICE_MEMORY = -3, /* the device has not enough free memory */
  DROWSE_ERR_NO_HOST_MEMORY = -4,   /* the host, its cgroup or backup_limit has not enough memory */
  DROWSE_ERR_NO_ADDRESS_SPACE = -5, /* no range of device addresses could be reserved */
  DROWSE_ERR_DRIVER = -6,           /* a driver call failed: drowse_error_get() has its code */
  DROWSE_ERR_DEVICE_LOST = -7,      /* a sticky error or a lost device: restart the process; sleeping tags stay readable */
  DROWSE_ERR_ASLEEP = -8,           /* the tag is asleep, or on its way there or back */
  DROWSE_ERR_BUSY = -9,             /* somebody else is at work on it: try again later */
  DROWSE_ERR_NOT_FOUND = -10,       /* no such tag, no such block */
  DROWSE_ERR_SCOPE = -11,           /* a scope left twice, on another thread, or nested too deep */
  DROWSE_ERR_HOOK = -12,            /* a framework's hook failed */
  DROWSE_ERR_SETTINGS = -13,        /* a settings string does not parse */
  DROWSE_ERR_FORKED = -14,          /* inherited through fork */
  DROWSE_ERR_POISONED = -15,        /* where the tag's bytes are is not known */
  DROWSE_ERR_TIMEOUT = -16,         /* only from calls that take a timeout: what was waited for goes on */
  DROWSE_ERR_CANCELED = -17,        /* an operation was canceled and everything is as before it */
  DROWSE_ERR_IO = -18,              /* a file could not be read or written */
  DROWSE_ERR_CORRUPT = -19,         /* a checksum does not match */
  DROWSE_ERR_SYSTEM = -20,          /* the system refused: drowse_error_get() has errno */
  DROWSE_ERR_UNSUPPORTED = -21      /* this version, or this driver, cannot do it */
} drowse_status;

/* The name of a status, "DROWSE_ERR_ASLEEP"; "DROWSE_ERR_UNKNOWN" for a value that is none. Static. Async-signal-safe. Since 0.1.
 */
DROWSE_API const char *drowse_status_name(drowse_status status);

/* One sentence about a status for a person. Static. Async-signal-safe. Since 0.1. */
DROWSE_API const char *drowse_status_text(drowse_status status);

/* This thread's last failure in words, naming what was wrong. Never NULL; "" if nothing has failed. Valid until the thread's next
 * failing call or its end. A call that succeeds leaves it alone. Since 0.1. */
DROWSE_API const char *drowse_last_error(void);

/* This thread's last failure for a program. Fields that say nothing about that failure are zero. Since 0.1. */
typedef struct drowse_error {
  size_t struct_size; /* in: sizeof(drowse_error) */
  drowse_status status;
  int driver_code;             /* the CUresult of the driver call that failed */
  int system_errno;            /* the errno of the system call that failed */
  uint64_t wanted_bytes;       /* out of memory: what was asked for */
  uint64_t free_bytes;         /* ... what was free */
  uint64_t largest_free_bytes; /* ... the largest free range */
  char tag[64];                /* the tag it was about */
} drowse_error;

/* Fills *error, up to error->struct_size bytes. DROWSE_ERR_INVALID: error is NULL or its struct_size is too small; the stored
 * failure is not replaced then. Since 0.1. */
DROWSE_API drowse_status drowse_error_get(drowse_error *error);

/* Stores a failure of the caller's own for drowse_last_error() and drowse_error_get() of this thread, and returns its status: for
 * libraries that stand on this one and report as it does. The text is copied and cut at 511 bytes. DROWSE_ERR_INVALID: status is
 * no failure, or text is NULL. Since 0.1. */
DROWSE_API drowse_status drowse_error_set(drowse_status status, const char *text);

/* The version of the library that runs, "0.1.0". Static. Async-signal-safe. Since 0.1. */
DROWSE_API const char *drowse_version(void);

/* Levels for drowse_log_set(). Since 0.1. */
enum { DROWSE_LOG_ERROR = 1, DROWSE_LOG_WARNING = 2, DROWSE_LOG_INFO = 3, DROWSE_LOG_DEBUG = 4 };

/* Has log called, for the whole process, with every message of at most this level; NULL: none, as at the start. The text has no
 * newline and is valid during the call. log runs on whichever thread has something to say, possibly on several at once, with no
 * lock held; it must return and may call drowse functions that take no heap. A call that began before may still end after this
 * returns. Since 0.1. */
DROWSE_API void drowse_log_set(void (*log)(void *context, int level, const char *text), void *context, int level);

/* ---- scopes: which tag the next allocation of this thread gets --------------------------------------------------------------
 */

/* Whether memory comes from an expandable segment, one range that grows in place, or from discrete segments. INHERIT takes the
 * enclosing frame's choice, or the heap's setting where no frame says. Since 0.1. */
typedef enum drowse_expandable {
  DROWSE_EXPANDABLE_INHERIT = 0,
  DROWSE_EXPANDABLE_ON = 1,
  DROWSE_EXPANDABLE_OFF = 2
} drowse_expandable;

/* A token for an open scope: a value without links, which the caller keeps where he likes. Since 0.1. */
typedef struct drowse_scope {
  uint64_t opaque[2];
} drowse_scope;

/* The empty token. Leaving it is DROWSE_OK. */
#define DROWSE_SCOPE_NONE \
  {                       \
    { 0, 0 }              \
  }

/* What is current. Since 0.1. */
typedef struct drowse_frame {
  const char *tag;              /* the tag's interned name, valid for the process's life */
  drowse_expandable expandable; /* INHERIT: the heap decides */
  size_t depth;                 /* open scopes of this thread */
} drowse_frame;

/* A tag's interned name: the fast way to name it. Lives as long as the process. Since 0.1. */
typedef struct drowse_tag drowse_tag;

/* Interns a name of 1 to 63 bytes of UTF-8 without control characters. The same name gives the same pointer, on every thread.
 * NULL, and drowse_last_error(): DROWSE_ERR_INVALID, the name is not such a name, or there are 65,535 names already;
 * DROWSE_ERR_NO_HOST_MEMORY. Since 0.1. */
DROWSE_API const drowse_tag *drowse_tag_get(const char *name) DROWSE_CHECKED;

/* Pushes the frame (tag, expandable) on this thread's stack and writes the token that ends it; after a failure *scope is the
 * empty token. NULL tag: the enclosing frame's. Allocates memory at a thread's first scope and at a tag's first use, else never.
 * DROWSE_ERR_INVALID: scope is NULL, or tag or expandable is no such thing; DROWSE_ERR_SCOPE: 64 scopes are open;
 * DROWSE_ERR_NO_HOST_MEMORY, DROWSE_ERR_SYSTEM: only at such a first; DROWSE_ERR_HOOK: the framework's flag could not be set.
 * Waits only while a framework's hook runs. A thread's frames end with the thread. Since 0.1. */
DROWSE_API drowse_status drowse_scope_enter(drowse_scope *scope, const char *tag, drowse_expandable expandable) DROWSE_CHECKED;

/* The same with an interned tag, or NULL: the enclosing frame's. Since 0.1. */
DROWSE_API drowse_status drowse_scope_enter_tag(drowse_scope *scope, const drowse_tag *tag,
                                                drowse_expandable expandable) DROWSE_CHECKED;

/* Makes current again exactly the frame that was current at the enter that wrote *scope, whatever was pushed since. The empty
 * token: DROWSE_OK. DROWSE_ERR_INVALID: scope is NULL; DROWSE_ERR_SCOPE: the scope has ended already, or is another thread's:
 * nothing changes. Since 0.1. */
DROWSE_API drowse_status drowse_scope_leave(drowse_scope *scope);

/* The current frame; with no scope open ("default", INHERIT, 0). Async-signal-safe; writes nothing. Since 0.1. */
DROWSE_API drowse_frame drowse_scope_current(void);

/* What DROWSE_SCOPE is made of. Not for direct use. */
typedef struct drowse_scope_loop {
  drowse_scope scope;
  bool begun;
} drowse_scope_loop;

static inline bool drowse_scope_loop_begin(drowse_scope_loop *loop, drowse_status *status, const char *tag,
                                           drowse_expandable expandable) {
  drowse_status entered = drowse_scope_enter(&loop->scope, tag, expandable);
  loop->begun = true;
  if (status != NULL) *status = entered;
  return entered == DROWSE_OK;
}

static inline void drowse_scope_loop_end(drowse_scope_loop *loop) {
  (void)drowse_scope_leave(&loop->scope);
}

#define DROWSE_SCOPE_NAME_(line) drowse_scope_loop_##line
#define DROWSE_SCOPE_LOOP_(status, tag, expandable, line)                                                                       \
  for (drowse_scope_loop DROWSE_SCOPE_NAME_(line) __attribute__((cleanup(drowse_scope_loop_end))) = {DROWSE_SCOPE_NONE, false}; \
       !DROWSE_SCOPE_NAME_(line).begun && drowse_scope_loop_begin(&DROWSE_SCOPE_NAME_(line), status, tag, expandable);)
#define DROWSE_SCOPE_AT_(status, tag, expandable, line) DROWSE_SCOPE_LOOP_(status, tag, expandable, line)

/* DROWSE_SCOPE("weights", DROWSE_EXPANDABLE_INHERIT) { ... } runs the block inside a scope, which ends however the block is left:
 * at its end, by return, break, continue (which both end the block: this is a for statement) or goto, by a C++ exception, or by
 * cancellation of the thread (C code compiled with -fexceptions). If the scope cannot be entered the block does not run. Since
 * 0.1. */
#define DROWSE_SCOPE(tag, expandable) DROWSE_SCOPE_AT_(NULL, tag, expandable, __LINE__)

/* The same, and stores the status of the enter in the lvalue status. Since 0.1. */
#define DROWSE_SCOPE_TRY(status, tag, expandable) DROWSE_SCOPE_AT_(&(status), tag, expandable, __LINE__)

/* A place on a stack of frames to come back to: a value. Since 0.1. */
typedef struct drowse_mark {
  uint64_t opaque[2];
} drowse_mark;

/* The current place. Async-signal-safe; writes nothing. Since 0.1. */
DROWSE_API drowse_mark drowse_scope_mark(void);

/* Ends all scopes that were entered since the mark; a mark on another stack of frames, which no other thread runs on, makes that
 * one current. DROWSE_ERR_SCOPE: the mark is another thread's, or its stack is gone: nothing changes;
 * DROWSE_ERR_HOOK: the scopes have ended, but a framework's hook failed. Since 0.1. */
DROWSE_API drowse_status drowse_scope_unwind(drowse_mark mark);

/* A jmp_buf that knows its scopes (doc/jumps.md). It is used as one is: by the thread that set it, while the function that set it
 * runs. Since 0.1. */
typedef struct drowse_jump {
  drowse_mark mark;
  jmp_buf env; /* for sigsetjmp() too: libc has one type for both */
} drowse_jump;

/* Notes the current place in the jump and returns it; what the macros below are made of. Async-signal-safe. Since 0.1. */
DROWSE_API drowse_jump *drowse_jump_arm(drowse_jump *jump);

/* setjmp() and sigsetjmp() for a drowse_jump *: valid wherever those are, 0 at first and drowse_longjmp()'s value when it jumps
 * here. Async-signal-safe. Since 0.1. */
#define drowse_setjmp(jump) setjmp(drowse_jump_arm(jump)->env)
#define drowse_sigsetjmp(jump, savemask) sigsetjmp(drowse_jump_arm(jump)->env, savemask)

/* Ends all scopes that were entered since the jump was set, on this stack of frames or, where it was set on another one, that
 * one; then jumps there as longjmp() and siglongjmp() do: value 0 arrives as 1. C++: no object with a destructor may be passed.
 * May be called from a signal handler wherever longjmp() may and the place it interrupted is not the first use of a thread's
 * scopes or of a tag; not to another stack of frames. Since 0.1. */
DROWSE_API void drowse_longjmp(drowse_jump *jump, int value) __attribute__((noreturn));

/* A stack of frames of its own: for coroutines, fibers and tasks, which take their scopes along. */
typedef struct drowse_stack drowse_stack;

/* Makes a stack of frames, which drowse_stack_destroy() ends; after a failure *stack is NULL. DROWSE_ERR_INVALID;
 * DROWSE_ERR_NO_HOST_MEMORY. Since 0.1. */
DROWSE_API drowse_status drowse_stack_create(drowse_stack **stack) DROWSE_CHECKED;

/* The same for a coroutine whose C stack is bytes at low: frames of functions there that were left by a plain longjmp() can be
 * told then. Since 0.1. */
DROWSE_API drowse_status drowse_stack_create_at(drowse_stack **stack, void *low, size_t bytes) DROWSE_CHECKED;

/* Makes to this thread's current stack of frames, NULL its own, and stores the one before in *from, unless from is NULL; NULL
 * stands for the thread's own there too. To be called beside the switch of the C stack, before or behind it. Runs no hook.
 * DROWSE_ERR_BUSY: another thread runs on it; DROWSE_ERR_NO_HOST_MEMORY, DROWSE_ERR_SYSTEM: only at a thread's first call. After
 * a failure nothing has changed and *from is the current one. A thread that ends parks the stack. Since 0.1. */
DROWSE_API drowse_status drowse_stack_swap(drowse_stack *to, drowse_stack **from);

/* The same; returns the one before. After a failure the current one stays. Since 0.1. */
DROWSE_API drowse_stack *drowse_stack_switch(drowse_stack *to);

/* Ends the stack's scopes and the stack. If it is this thread's current one the thread's own becomes current; it must not be
 * another thread's. NULL: nothing. Since 0.1. */
DROWSE_API void drowse_stack_destroy(drowse_stack *stack);

/* ---- a hosting framework's flag
 *
 * A framework with an allocator of its own (PyTorch) has one flag for the whole process that says whether its memory comes from
 * expandable segments. While a framework is attached, that flag is off exactly while some stack's current frame says
 * DROWSE_EXPANDABLE_OFF, and what it was before at all other times. */

/* drowse_framework.flags: in a forked child the framework is left alone. Since 0.1. */
enum { DROWSE_FRAMEWORK_PARENT_ONLY = 1 };

/* How to get at the flag. Hooks run one after another, on the thread that enters or ends a scope, with signals blocked. They
 * return 0 or an error; they must not jump, throw, fork or end the thread; scopes that they enter they leave. Since 0.1. */
typedef struct drowse_framework {
  size_t struct_size;
  uint32_t flags;
  void *context;
  int (*get_expandable)(void *context, bool *on); /* the live value */
  int (*set_expandable)(void *context, bool on);  /* must leave every other setting as it was */
  uint64_t (*stamp)(void *context); /* changes whenever anyone sets anything; NULL: there is none. With it a change that
                                       somebody else makes while the flag is off is left as it is */
} drowse_framework;

/* Attaches a framework, which is copied; scopes that are open count. DROWSE_ERR_INVALID; DROWSE_ERR_BUSY: one is attached
 * already; DROWSE_ERR_HOOK; DROWSE_ERR_UNSUPPORTED. Since 0.1. */
DROWSE_API drowse_status drowse_framework_attach(const drowse_framework *framework);

/* Turns the flag back to what it was and detaches: behind it no hook runs. DROWSE_ERR_NOT_FOUND: none is attached;
 * DROWSE_ERR_BUSY: called from a hook; DROWSE_ERR_HOOK: the flag could not be turned back, the framework stays attached. Since
 * 0.1. */
DROWSE_API drowse_status drowse_framework_detach(void);

/* ---- devices and heaps ------------------------------------------------------------------------------------------------------
 */

/* What drowse_devices() tells about a device. Since 0.1. */
typedef struct drowse_device {
  size_t struct_size;
  char device[64];      /* what drowse_heap_options.device takes: "cuda:0", "host" */
  char name[128];       /* the maker's: "NVIDIA H100 80GB HBM3" */
  char uuid[64];        /* "GPU-…" or "MIG-…"; "" for the host device */
  uint64_t total_bytes; /* device memory */
  uint64_t granularity; /* bytes: the smallest physical piece; 0 if the device cannot be used, reason in unusable */
  int driver_version;   /* as CUDA counts: 13000 is 13.0; 0 for the host device */
  char unusable[128];   /* why no heap can be opened on it; "" if one can */
} drowse_device;

/* Calls each for every device there is, the host device last, until it returns non-zero. A machine without a driver has the host
 * device alone: DROWSE_OK. A driver that is there but does not work is told as one device "cuda" with the reason in unusable.
 * each runs on the calling thread with no lock held. DROWSE_ERR_INVALID: each is NULL. Since 0.1. */
DROWSE_API drowse_status drowse_devices(int (*each)(void *context, const drowse_device *device), void *context);

/* The memory that drowse owns on one device. */
typedef struct drowse_heap drowse_heap;

/* Kinds of memory that a heap may be made of. */
enum {
  DROWSE_HEAP_EXPORTABLE = 1,         /* drowse_export_get() gives descriptors of it, for other processes */
  DROWSE_HEAP_RDMA = 2,               /* network cards can reach it (GPUDirect RDMA) */
  DROWSE_HEAP_RDMA_WHERE_POSSIBLE = 4 /* the same on a device that can; on others the heap is opened without */
};

/* Give it by {.struct_size = sizeof(drowse_heap_options)}; a member left zero means its default. Since 0.1. */
typedef struct drowse_heap_options {
  size_t struct_size;
  const char *device; /* "cuda:N", "cuda:GPU-<uuid>", "cuda:MIG-<uuid>", "host", "host:4GiB" (its capacity), "auto" (cuda:0 where
                         it opens, else host). NULL: $DROWSE_DEVICE, else "cuda:0" */
  const char *settings;  /* "expandable_segments:True" or ":False". NULL: $DROWSE_SETTINGS, else expandable_segments:True */
  uint32_t flags;        /* DROWSE_HEAP_... */
  void *cuda_context;    /* a CUcontext, which must outlive the heap; NULL: the device's primary context */
  uint64_t backup_limit; /* host bytes for backups; 0: what the machine and its cgroup can give */
  drowse_status (*pressure)(void *context, uint64_t missing_bytes); /* device memory is short: free some and return DROWSE_OK to
                            have it tried again. Runs on the thread that wants the memory, with no lock held */
  void *pressure_context;
  const char *const *peers; /* devices that may read and write the heap's memory too, from their first use of it and after every
                               wake: names as for device. At most 63 */
  size_t peer_count;
  void (*woken)(void *context, const char *tag); /* the tag is awake again, on other physical pages: for what is tied to these,
                            such as RDMA registrations and exports. Runs on the thread that waits for the wake, before
                            drowse_wake() or drowse_op_wait() returns, for each tag in the order in which they wake, with no lock
                            held. Other threads may use the tag by then; peers have access already */
  void *woken_context;
  uint64_t backup_keep; /* host bytes: when an operation ends, unused memory for backups beyond it is given back; 0: all is kept
                           for the next sleep. drowse_backup_trim() does so at any time */
} drowse_heap_options;

/* Opens a heap; NULL options: the defaults. Heaps on one device share its memory and nothing else. drowse_heap_close() ends it.
 * After a failure *heap is NULL. DROWSE_ERR_INVALID: a bad argument or device name; DROWSE_ERR_NO_DEVICE: no such device, no
 * driver, or one too old (all that it lacks is named); DROWSE_ERR_SETTINGS; DROWSE_ERR_UNSUPPORTED: an option of a later version,
 * the device has no virtual memory management or not what flags want, or a peer cannot access it; DROWSE_ERR_NO_HOST_MEMORY;
 * DROWSE_ERR_DRIVER; DROWSE_ERR_SYSTEM. Since 0.1. */
DROWSE_API drowse_status drowse_heap_open(drowse_heap **heap, const drowse_heap_options *options) DROWSE_CHECKED;

/* Ends a heap and everything in it: cancels operations and waits for them and for the work on the device that it knows of, frees
 * live blocks in any state. Always consumes the heap, also when it reports DROWSE_ERR_DRIVER (the driver would not take something
 * back). Nobody may be using the heap. NULL: DROWSE_OK. A process may exit without it. Since 0.1. */
DROWSE_API drowse_status drowse_heap_close(drowse_heap *heap);

/* What a heap runs on and with. Since 0.1. */
typedef struct drowse_heap_info {
  size_t struct_size;
  char device[64];             /* what was opened: "cuda:0", "host:4GiB" */
  const char *device_source;   /* where that name came from: "option", "DROWSE_DEVICE" or "default" */
  bool expandable;             /* expandable_segments: what DROWSE_EXPANDABLE_INHERIT means here */
  const char *settings_source; /* "option", "DROWSE_SETTINGS" or "default" */
  uint64_t granularity;        /* bytes: the smallest physical piece */
  uint64_t total_bytes;        /* of the device */
  uint64_t free_bytes;         /* of the device, now, as its driver says */
  uint64_t backup_limit;       /* host bytes for backups; 0: what the machine and its cgroup can give */
} drowse_heap_info;

/* Fills *info, up to info->struct_size bytes. DROWSE_ERR_INVALID, DROWSE_ERR_DRIVER. Since 0.1. */
DROWSE_API drowse_status drowse_heap_info_get(drowse_heap *heap, drowse_heap_info *info);

/* A CUstream; NULL: the legacy default stream. Streams belong to the caller. */
typedef void *drowse_stream;

/* Allocates bytes of device memory, for use on stream, with the calling thread's current frame. The address is a multiple of 512.
 * 0 bytes: DROWSE_OK and NULL. After a failure *ptr is NULL. DROWSE_ERR_INVALID: also where the stream is on another device;
 * DROWSE_ERR_ASLEEP: the tag is not awake; DROWSE_ERR_POISONED; DROWSE_ERR_NO_DEVICE_MEMORY (unused memory has been given back,
 * and the pressure hook called, before; the error says who holds how much); DROWSE_ERR_NO_ADDRESS_SPACE;
 * DROWSE_ERR_NO_HOST_MEMORY; DROWSE_ERR_CORRUPT: a debug build found a write to freed memory; DROWSE_ERR_DRIVER;
 * DROWSE_ERR_DEVICE_LOST. Since 0.1. */
DROWSE_API drowse_status drowse_alloc(drowse_heap *heap, size_t bytes, drowse_stream stream, void **ptr) DROWSE_CHECKED;

/* Since 0.1. */
typedef struct drowse_alloc_options {
  size_t struct_size;
  const char *tag;              /* NULL: the current frame's */
  drowse_expandable expandable; /* INHERIT: the current frame's */
  size_t alignment;             /* a power of two, at most the device's granularity; 0: 512 */
  uint32_t flags;               /* 0 */
} drowse_alloc_options;

/* The same with options in place of the frame; NULL options: drowse_alloc(). DROWSE_ERR_UNSUPPORTED: an option of a later
 * version. Since 0.1. */
DROWSE_API drowse_status drowse_alloc_with(drowse_heap *heap, size_t bytes, drowse_stream stream,
                                           const drowse_alloc_options *options, void **ptr) DROWSE_CHECKED;

/* Frees a block, whatever its tag's state; it may be reused by work after that now on the block's stream. NULL: DROWSE_OK.
 * DROWSE_ERR_NOT_FOUND: ptr is not the start of a live block of this heap. Any thread may free. Since 0.1. */
DROWSE_API drowse_status drowse_free(drowse_heap *heap, void *ptr);

/* The same, for memory that another stream used last: it may be reused after the work now on that stream. Errors: those of
 * drowse_record_stream() too, and then the block is not freed. Since 0.1. */
DROWSE_API drowse_status drowse_free_on(drowse_heap *heap, void *ptr, drowse_stream stream);

/* Says that a stream other than the block's own uses it: once the block is freed it is not reused before the work that is then on
 * that stream is over. While the stream captures a graph no event can be recorded on it, so such a block waits for the capture's
 * end; what the graph uses when it is launched is its owner's to keep alive. Any thread may call this. NULL: DROWSE_OK.
 * DROWSE_ERR_NOT_FOUND: ptr is not the start of a live block of this heap; DROWSE_ERR_INVALID: the stream is on another device;
 * DROWSE_ERR_NO_HOST_MEMORY; DROWSE_ERR_DRIVER. Since 0.1. */
DROWSE_API drowse_status drowse_record_stream(drowse_heap *heap, void *ptr, drowse_stream stream);

/* What another process needs in order to use a block. A block may lie in several extents: what is behind these bytes is got by
 * asking for the address behind them. Since 0.1. */
typedef struct drowse_export {
  size_t struct_size;
  int fd;                /* for cuMemImportFromShareableHandle; the caller's to close */
  uint64_t extent_bytes; /* of what it imports: to be reserved and mapped as a whole */
  uint64_t offset;       /* of the address in there */
  uint64_t bytes;        /* of the block from the address on that are in there */
} drowse_export;

/* Fills *exported for the memory at an address in a block, up to exported->struct_size bytes. The tag must be awake. It may sleep
 * afterwards, but then the importer has the last of the old memory, and whoever wants the new one after waking exports anew. The
 * heap must have been opened with DROWSE_HEAP_EXPORTABLE, else DROWSE_ERR_UNSUPPORTED. DROWSE_ERR_NOT_FOUND, DROWSE_ERR_ASLEEP,
 * DROWSE_ERR_BUSY, DROWSE_ERR_POISONED, DROWSE_ERR_DRIVER. Since 0.1. */
DROWSE_API drowse_status drowse_export_get(drowse_heap *heap, const void *ptr, drowse_export *exported);

/* To be called before a stream that was given to this heap is destroyed: drowse forgets it, and once this has returned does not
 * use the handle any more; calls on other threads that do are waited for, not the stream's work. Its live blocks stay valid; once
 * freed, what fills whole extents is reused when the stream's work is over, the rest together with its neighbours.
 * DROWSE_ERR_NOT_FOUND: the heap has not seen it. Since 0.1. */
DROWSE_API drowse_status drowse_stream_retire(drowse_heap *heap, drowse_stream stream);

/* Frees every block of a tag. DROWSE_ERR_INVALID; DROWSE_ERR_NOT_FOUND: no such tag; DROWSE_ERR_BUSY: the tag is in motion.
 * Since 0.1. */
DROWSE_API drowse_status drowse_tag_clear(drowse_heap *heap, const char *tag);

/* Gives unused memory back to the device until at most keep_bytes of it stay mapped; where there is any, waits for the work on
 * the device first. DROWSE_ERR_BUSY: a known stream is capturing, and waiting would destroy the capture; DROWSE_ERR_DRIVER. Since
 * 0.1. */
DROWSE_API drowse_status drowse_trim(drowse_heap *heap, uint64_t keep_bytes);

/* The same without waiting, also while a stream captures: what a stream may still use stays. DROWSE_ERR_DRIVER. Since 0.1. */
DROWSE_API drowse_status drowse_trim_idle(drowse_heap *heap, uint64_t keep_bytes);

/* Copies bytes from host memory to ptr, any range inside one block, after the work now on the block's stream; done when it
 * returns. Asleep: the backup is written. DROWSE_ERR_INVALID: the range leaves the block; DROWSE_ERR_NOT_FOUND: ptr is in no live
 * block; DROWSE_ERR_ASLEEP: the tag is asleep and its contents were discarded; DROWSE_ERR_BUSY: the tag is in motion or the
 * block's stream is capturing; DROWSE_ERR_POISONED; DROWSE_ERR_DRIVER; DROWSE_ERR_DEVICE_LOST; of a backup in a file
 * DROWSE_ERR_IO, DROWSE_ERR_CORRUPT, DROWSE_ERR_NO_HOST_MEMORY and DROWSE_ERR_SYSTEM, too: what was to be written may be half
 * written then, and nothing else is; if the file cannot be read either, its piece of 4 MiB is DROWSE_ERR_CORRUPT until it has
 * been written whole. Since 0.1. */
DROWSE_API drowse_status drowse_copy_in(drowse_heap *heap, void *ptr, const void *host, size_t bytes);

/* Copies bytes from ptr, any range inside one block, to host memory. Likewise. Since 0.1. */
DROWSE_API drowse_status drowse_copy_out(drowse_heap *heap, void *host, const void *ptr, size_t bytes);

/* Stores in *host where bytes from ptr on, any range inside one block, are in host memory while its tag sleeps: to be read, or
 * written, without a copy. Good until the tag is woken, discarded or cleared, or the block is freed, which is the caller's to
 * prevent meanwhile. What a sealed tag keeps while it is awake is to be read, and good until it is unsealed, too, or the block
 * written to by drowse_copy_in(). After a failure *host is NULL. DROWSE_ERR_INVALID: also where the range leaves the block;
 * DROWSE_ERR_NOT_FOUND: ptr is in no live block, or its tag is awake and keeps none, its backup in a file, or it was discarded;
 * DROWSE_ERR_BUSY: the tag is in motion. Since 0.1. */
DROWSE_API drowse_status drowse_backup_get(drowse_heap *heap, const void *ptr, size_t bytes, void **host) DROWSE_CHECKED;

/* The driver's entry point of that name, "cuStreamCreate", as this heap uses it: on the host device, the host device's. Cast it
 * to the type that cuda.h gives it. Valid until the heap is closed. NULL: not there. Since 0.1. */
DROWSE_API void *drowse_driver_entry(drowse_heap *heap, const char *name);

/* ---- sleep and wake ---------------------------------------------------------------------------------------------------------
 */

/* What becomes of a tag's contents. Since 0.1. */
typedef enum drowse_action {
  DROWSE_KEEP = 0,    /* the tag stays awake */
  DROWSE_OFFLOAD = 1, /* it sleeps, its contents go to host memory */
  DROWSE_DISCARD = 2  /* it sleeps, its contents are lost */
} drowse_action;

/* One rule of drowse_sleep(). Since 0.1. */
typedef struct drowse_rule {
  const char *tag; /* NULL: every tag that no other rule names */
  drowse_action action;
  uint32_t flags;       /* 0 */
  uint64_t reserved[2]; /* 0 */
} drowse_rule;

/* What sleep waits for before it copies. Work submitted after that wait is the caller's to prevent. Since 0.1. */
typedef enum drowse_drain {
  DROWSE_DRAIN_DEVICE = 0, /* all work of the heap's context. CUDA destroys a capture that is in progress on any stream meanwhile;
                              drowse asks the streams that it knows first, and cannot ask others */
  DROWSE_DRAIN_STREAMS = 1, /* the work on the streams given and on those that drowse knows */
  DROWSE_DRAIN_NONE = 2     /* nothing: the caller vouches */
} drowse_drain;

/* Where backups go. Since 0.1. */
typedef enum drowse_backup {
  DROWSE_BACKUP_HOST = 0,
  DROWSE_BACKUP_FILE = 1,          /* an unlinked file in a directory, by direct I/O where that is possible, with checksums */
  DROWSE_BACKUP_HOST_THEN_FILE = 2 /* as much to the host as backup_limit and the machine allow, the rest to a file */
} drowse_backup;

/* How far an operation is. Since 0.1. */
typedef struct drowse_progress {
  uint64_t done_bytes;
  uint64_t total_bytes;
  const char *tag; /* the one being copied, or NULL */
} drowse_progress;

/* Since 0.1. */
typedef struct drowse_sleep_options {
  size_t struct_size;
  uint32_t flags; /* 0 */
  drowse_drain drain;
  const drowse_stream *streams; /* with DROWSE_DRAIN_STREAMS; the heap knows them from then on: drowse_stream_retire() */
  size_t stream_count;
  int64_t drain_timeout_ms; /* for holds and for the device together; <= 0: for ever. Past it DROWSE_ERR_BUSY, nothing changed */
  drowse_backup backup;
  const char *directory; /* for a file backup. The file has no name there and is gone when the process ends, however it does */
  void (*progress)(void *context, const drowse_progress *progress); /* called on the calling thread, with no lock held */
  void *context;
} drowse_sleep_options;

/* drowse_wake_options.flags. Since 0.1. */
enum {
  DROWSE_WAKE_TOGETHER = 1, /* no tag is awake before all are copied */
  DROWSE_WAKE_ZERO = 2,     /* discarded memory wakes as zeros */
  DROWSE_WAKE_POISON = 4    /* discarded memory wakes as bytes 0xdb */
};

/* Since 0.1. */
typedef struct drowse_wake_options {
  size_t struct_size;
  uint32_t flags;
  int64_t deadline_ms; /* for want of device memory it is tried again, the pressure hook called between, until then; 0: once; < 0:
                          for ever */
  void (*progress)(void *context, const drowse_progress *progress);
  void *context;
} drowse_wake_options;

/* Puts tags to sleep as count rules say, all of them or none; tags that no rule names are kept; one that sleeps already stays as
 * it is, except that DISCARD drops its backup. NULL options: the defaults. Waits for holds, then drains, copies everything, and
 * only then gives the first page back. Of a sealed tag what has a backup is not copied again. To discard a tag ends its seal.
 * DROWSE_ERR_INVALID: a bad rule, or a tag named twice; DROWSE_ERR_NOT_FOUND: no such tag; DROWSE_ERR_BUSY: a tag is in motion, a
 * known stream is capturing, or the time is over; DROWSE_ERR_NO_HOST_MEMORY: for the backup; DROWSE_ERR_IO: the file, its disk is
 * full for instance; DROWSE_ERR_CORRUPT: a sealed tag's contents have changed (looked at with DROWSE_DEBUG_SEAL=1 in the
 * environment when the heap is opened); DROWSE_ERR_POISONED; DROWSE_ERR_DEVICE_LOST; DROWSE_ERR_UNSUPPORTED; DROWSE_ERR_SYSTEM:
 * no thread could be started. DROWSE_ERR_DRIVER: nothing changed, or, if drowse_stats.stuck_bytes has grown, the tags are asleep
 * and whole and the driver would not take some pages back, which is tried again by the next sleep, by a wake that moves a
 * tag, by trim, for want of memory, and by close. Since 0.1. */
DROWSE_API drowse_status drowse_sleep(drowse_heap *heap, const drowse_rule *rules, size_t count,
                                      const drowse_sleep_options *options);

/* Wakes tags in the order given; NULL, 0: every tag. Each is mapped and copied whole before it is awake and before its backup
 * goes; when one cannot be woken the call stops, those before it stay awake, it and the others stay asleep and whole, and the
 * call can be made again. One that is awake already stays as it is. Returns as drowse_sleep() does, and
 * DROWSE_ERR_NO_DEVICE_MEMORY. DROWSE_ERR_CORRUPT: what came back from a file is not what went there; the tag stays asleep, and
 * drowse_copy_out() reads all of it but the pieces that are damaged; its block can be freed, or the tag discarded. Since 0.1. */
DROWSE_API drowse_status drowse_wake(drowse_heap *heap, const char *const *tags, size_t count,
                                     const drowse_wake_options *options);

/* Promises that a tag's contents do not change while it is awake: then the backup that its next sleep makes is kept when it
 * wakes, and a later sleep copies nothing. drowse_copy_in() and blocks that are new are seen and copied again; writing from the
 * device breaks the promise. Unsealing drops a backup that an awake tag has kept. Either may be done again. DROWSE_ERR_INVALID;
 * DROWSE_ERR_NOT_FOUND; DROWSE_ERR_BUSY: the tag is in motion; DROWSE_ERR_POISONED. Since 0.1. */
DROWSE_API drowse_status drowse_seal(drowse_heap *heap, const char *tag);
DROWSE_API drowse_status drowse_unseal(drowse_heap *heap, const char *tag);

/* Sees to it that bytes of unused host memory for backups are there, touched and pinned, so that the next sleep of as much does
 * not wait for that. The second does it in the background. A sleep meanwhile uses what is ready, and waits for the rest if there
 * is room for no more. DROWSE_ERR_NO_HOST_MEMORY: the limit, the machine or its cgroup has not as much; nothing has changed.
 * DROWSE_ERR_INVALID; DROWSE_ERR_DRIVER; DROWSE_ERR_DEVICE_LOST. Since 0.1. */
DROWSE_API drowse_status drowse_backup_reserve(drowse_heap *heap, uint64_t bytes);
DROWSE_API drowse_status drowse_backup_reserve_start(drowse_heap *heap, uint64_t bytes);

/* Gives unused host memory for backups back until keep_bytes of it are left; with 0 no unused page stays pinned, resident or
 * reserved. A backup that is in use, of a sleeping or a sealed tag, is never touched. DROWSE_ERR_INVALID; DROWSE_ERR_DRIVER: the
 * driver would not unpin some. Since 0.1. */
DROWSE_API drowse_status drowse_backup_trim(drowse_heap *heap, uint64_t keep_bytes);

/* A sleep or a wake that goes on without being waited for. Since 0.1. */
typedef struct drowse_op drowse_op;

/* Start what drowse_sleep() and drowse_wake() do, and return. Several operations may run at once, on different tags. What is
 * wrong with the call itself is told at once, as those tell it, and *op is NULL then: bad arguments, tags in motion
 * (DROWSE_ERR_BUSY), DROWSE_ERR_NO_HOST_MEMORY, DROWSE_ERR_SYSTEM. All else is drowse_op_wait()'s to tell. The caller releases
 * the operation; tags, rules, streams and the directory are copied. The callbacks' context must be valid until the operation has
 * been waited for to its end, or released. Since 0.1. */
DROWSE_API drowse_status drowse_sleep_start(drowse_heap *heap, const drowse_rule *rules, size_t count,
                                            const drowse_sleep_options *options, drowse_op **op) DROWSE_CHECKED;
DROWSE_API drowse_status drowse_wake_start(drowse_heap *heap, const char *const *tags, size_t count,
                                           const drowse_wake_options *options, drowse_op **op) DROWSE_CHECKED;

/* Waits for the operation's end and returns how it ended, as often as it is asked, on any thread, also after the heap has been
 * closed; drowse_last_error() then has the operation's error. timeout_ms < 0: for ever; 0: does not wait. DROWSE_ERR_TIMEOUT: it
 * goes on. Callbacks (progress, pressure, woken) run on one of the threads that wait, so nobody asks the pressure hook while
 * nobody waits; a thread that has jumped out of one remains the one that they run on. DROWSE_ERR_INVALID; DROWSE_ERR_FORKED.
 * Since 0.1. */
DROWSE_API drowse_status drowse_op_wait(drowse_op *op, int64_t timeout_ms);

/* How many bytes have been copied, of how many that will be, as far as is known yet. Either may be NULL. DROWSE_ERR_INVALID;
 * DROWSE_ERR_FORKED. Since 0.1. */
DROWSE_API drowse_status drowse_op_progress(const drowse_op *op, uint64_t *done_bytes, uint64_t *total_bytes);

/* Asks the operation to end. It then ends with DROWSE_ERR_CANCELED and its tags as they were, but for those that a wake has woken
 * already; or, if it was too late, as it would have. Does not wait. DROWSE_ERR_INVALID; DROWSE_ERR_FORKED. Since 0.1. */
DROWSE_API drowse_status drowse_op_cancel(drowse_op *op);

/* Gives the handle back, once; the operation goes on if it has not ended. NULL: nothing happens. Nobody may be waiting for it.
 * Since 0.1. */
DROWSE_API void drowse_op_release(drowse_op *op);

/* Waits until the tag is awake and keeps it awake until drowse_unhold(). Counts; takes no lock while the tag is awake. timeout_ms
 * < 0: for ever; 0: does not wait. DROWSE_ERR_INVALID, DROWSE_ERR_NOT_FOUND; DROWSE_ERR_TIMEOUT; DROWSE_ERR_POISONED. Since 0.1.
 */
DROWSE_API drowse_status drowse_hold(drowse_heap *heap, const char *tag, int64_t timeout_ms) DROWSE_CHECKED;

/* Ends one hold; any thread may. DROWSE_ERR_INVALID: there is none; DROWSE_ERR_NOT_FOUND: no such tag. Since 0.1. */
DROWSE_API drowse_status drowse_unhold(drowse_heap *heap, const char *tag);

/* The same with an interned name (drowse_tag_get()): a few nanoseconds each while the tag is awake. Since 0.1. */
DROWSE_API drowse_status drowse_hold_tag(drowse_heap *heap, const drowse_tag *tag, int64_t timeout_ms) DROWSE_CHECKED;
DROWSE_API drowse_status drowse_unhold_tag(drowse_heap *heap, const drowse_tag *tag);

/* ---- seeing -----------------------------------------------------------------------------------------------------------------
 */

/* Since 0.1. */
typedef enum drowse_state {
  DROWSE_AWAKE = 0,
  DROWSE_FALLING_ASLEEP = 1,
  DROWSE_ASLEEP = 2,
  DROWSE_WAKING = 3,
  DROWSE_POISONED = 4
} drowse_state;

/* Of a tag, or of a heap: the sums. Since 0.1. */
typedef struct drowse_stats {
  size_t struct_size;
  uint64_t live_bytes;      /* in live blocks, each rounded up to 512 */
  uint64_t live_blocks;     /* live blocks */
  uint64_t mapped_bytes;    /* physical device memory */
  uint64_t reserved_bytes;  /* device addresses */
  uint64_t backup_bytes;    /* host memory that holds a backup */
  uint64_t discarded_bytes; /* live blocks that sleep without contents */
  uint64_t pinned_bytes;    /* host memory pinned by this heap, in use or kept for the next sleep; 0 for a tag */
  uint64_t stuck_bytes;     /* physical memory that the driver would not take back */
  uint64_t sleeps;          /* times put to sleep; of a heap: drowse_sleep() calls that put a tag to sleep */
  uint64_t wakes;           /* likewise */
  drowse_state state;       /* of a heap: DROWSE_AWAKE if every tag is, else the state of one that is not */
  uint32_t holds;           /* open holds */
  uint64_t metadata_bytes;  /* host memory for the heap's own records, at most; 0 for a tag */
  uint64_t file_bytes;      /* in files that hold a backup */
  uint64_t
      host_bytes; /* host memory for backups, in use or kept; the next three, and pinned_bytes, say of what kind. 0 for a tag */
  uint64_t huge_bytes;     /* ... of which in huge pages */
  uint64_t pageable_bytes; /* ... of which the driver would not pin: copied through a small pinned ring */
  uint32_t sealed;         /* 1: it is; 0 for a heap */
  uint32_t reserved;       /* 0 */
} drowse_stats;

/* Fills *stats, up to stats->struct_size bytes; NULL tag: the heap. DROWSE_ERR_INVALID, DROWSE_ERR_NOT_FOUND. Since 0.1. */
DROWSE_API drowse_status drowse_stats_get(drowse_heap *heap, const char *tag, drowse_stats *stats);

/* Calls each for every tag of the heap, in the order of their first allocation, until it returns non-zero. It runs with no lock
 * held and may call drowse; tags that appear meanwhile may be left out. DROWSE_ERR_INVALID. Since 0.1. */
DROWSE_API drowse_status drowse_tags(drowse_heap *heap, int (*each)(void *context, const char *tag, const drowse_stats *stats),
                                     void *context);

/* Waits until the tag is in that state. timeout_ms < 0: for ever; 0: does not wait. DROWSE_ERR_TIMEOUT, DROWSE_ERR_INVALID,
 * DROWSE_ERR_NOT_FOUND. Since 0.1. */
DROWSE_API drowse_status drowse_tag_wait(drowse_heap *heap, const char *tag, drowse_state state,
                                         int64_t timeout_ms) DROWSE_CHECKED;

/* Since 0.1. */
typedef struct drowse_block {
  size_t struct_size;
  void *base;
  uint64_t bytes; /* as asked for */
  const char *tag;
  drowse_stream stream;
  drowse_state state; /* its tag's */
} drowse_block;

/* Fills *block, up to block->struct_size bytes, with the live block that ptr points into. DROWSE_ERR_INVALID;
 * DROWSE_ERR_NOT_FOUND: none. Since 0.1. */
DROWSE_API drowse_status drowse_block_get(drowse_heap *heap, const void *ptr, drowse_block *block);

/* ---- settings strings ------------------------------------------------------------------------------------------------------
 *
 * What PYTORCH_CUDA_ALLOC_CONF holds and a heap's settings are written in: "key:value,key:value", where a value is a word or a
 * list, "[1:2,4:8,>:16]". These two functions allocate nothing, look at no locale and read no environment variable. */

/* Whose rules hold. The two of PyTorch are those of its CUDA builds: they accept and refuse what the version does, whatever it
 * was meant to do (a trailing comma, "512MB", "-1"), but do not ask which backend is loaded. STRICT refuses all that is doubtful:
 * unknown keys, keys named twice, spaces inside words (around them they are fine), numbers that are not plain, lists out of
 * order. What it accepts TORCH_2_10 accepts too, and reads the same. Since 0.1. */
typedef enum drowse_settings_dialect {
  DROWSE_SETTINGS_STRICT,
  DROWSE_SETTINGS_TORCH_2_9,
  DROWSE_SETTINGS_TORCH_2_10
} drowse_settings_dialect;

/* The key backend. Since 0.1. */
typedef enum drowse_settings_backend { DROWSE_SETTINGS_NATIVE, DROWSE_SETTINGS_CUDA_MALLOC_ASYNC } drowse_settings_backend;

/* What a settings string says; what it does not name has its default: the state of a process that starts with it. The key has the
 * member's name, with _mb behind it where that is said. Since 0.1. */
typedef struct drowse_settings {
  size_t struct_size;
  bool expandable_segments;               /* default false. A heap's own default is true */
  uint64_t max_split_size;                /* bytes, key in MiB (_mb); larger blocks are not split; default UINT64_MAX: all are */
  uint64_t max_non_split_rounding;        /* bytes, key in MiB (_mb): how much larger a reused block may be; default 20 MiB */
  double garbage_collection_threshold;    /* fraction of the memory allowed, above 0 and below 1; default 0: none is collected */
  uint64_t roundup_power2_divisions[16];  /* [i]: sizes from 2^i MiB, the first also below, the last also above, are rounded up
                                             to one of so many steps between powers of 2; default 0, like 1: no rounding */
  drowse_settings_backend backend;        /* default native */
  bool release_lock_on_cudamalloc;        /* default false; key also release_lock_on_hipmalloc */
  bool graph_capture_record_stream_reuse; /* default false */
  bool pinned_use_cuda_host_register;     /* default false; key also pinned_use_hip_host_register */
  bool pinned_use_background_threads;     /* default false */
  uint64_t pinned_num_register_threads;   /* a power of 2, at most 128; default 1 */
  uint64_t pinned_reserve_segment_size;   /* bytes, key in MiB (_mb), UINT64_MAX: more than fits; default 0: none; not in 2.9 */
  double per_process_memory_fraction;     /* fraction of the device's memory, 0 to 1; default 1; not in 2.9 */
} drowse_settings;

/* Reads text (NULL is as "") into *settings. DROWSE_ERR_INVALID: settings is NULL or of no size, or there is no such dialect;
 * DROWSE_ERR_SETTINGS: the dialect refuses the text, drowse_last_error() says why, and *error_offset, unless error_offset is
 * NULL, is the offset of the first byte of what is wrong, or the text's length if something is missing at its end. A number of
 * more than 1,023 characters is refused in every dialect where it is a fraction. Since 0.1. */
DROWSE_API drowse_status drowse_settings_parse(const char *text, drowse_settings_dialect dialect, drowse_settings *settings,
                                               size_t *error_offset) DROWSE_CHECKED;

/* Writes text (NULL is as "") with the key's value changed to out: everywhere it is named, also by its other name; where it is
 * not, "key:value" is put in front, or behind blanks that are all there is. All the rest stays byte for byte. What a dialect
 * accepts it accepts afterwards if it accepts the new pair by itself, and reads no other key otherwise. The key and the value
 * need not be known to this version: a key is a word, a value a word or a list. *out_bytes is the room at out, and becomes what
 * the result takes, with its NUL; out NULL: only that. text and out must not overlap. DROWSE_ERR_INVALID: key, value or
 * out_bytes is NULL or not of that form, or the room is too small: out is untouched, *out_bytes is what is needed;
 * DROWSE_ERR_SETTINGS: text has a key with no value, or a value with no key. Since 0.1. */
DROWSE_API drowse_status drowse_settings_edit(const char *text, const char *key, const char *value, char *out,
                                              size_t *out_bytes) DROWSE_CHECKED;

#ifdef __cplusplus
}

namespace drowse {

/* A scope that ends with the object, which is neither copied nor moved: declare it in a block. Throws nothing; whether it was
 * entered it tells. On the thread that made it only. Since 0.1. */
class scope {
public:
  explicit scope(const char *tag, drowse_expandable expandable = DROWSE_EXPANDABLE_INHERIT) noexcept
      : status_(drowse_scope_enter(&token_, tag, expandable)) {
  }
  explicit scope(const drowse_tag *tag, drowse_expandable expandable = DROWSE_EXPANDABLE_INHERIT) noexcept
      : status_(drowse_scope_enter_tag(&token_, tag, expandable)) {
  }
  explicit scope(drowse_expandable expandable) noexcept : status_(drowse_scope_enter_tag(&token_, nullptr, expandable)) {
  }
  ~scope() {
    (void)leave();
  }
  scope(const scope &) = delete;
  scope &operator=(const scope &) = delete;

  /* Ends it before the object does, and tells of a hook that failed; again: DROWSE_OK, nothing happens. */
  drowse_status leave() noexcept {
    drowse_scope token = token_;
    token_ = drowse_scope DROWSE_SCOPE_NONE;
    return drowse_scope_leave(&token);
  }

  /* What entering it returned. */
  drowse_status status() const noexcept {
    return status_;
  }
  explicit operator bool() const noexcept {
    return status_ == DROWSE_OK;
  }

private:
  drowse_scope token_ = DROWSE_SCOPE_NONE;
  drowse_status status_;
};

} // namespace drowse
#endif

#endif /* DROWSE_H */
