/* Hides AVX-512 and AMX from the program that preloads this library, and from the programs that it
 * starts: the instruction CPUID tells of the client core of the same vendor that has neither.
 *
 * Linux lets a thread ask for a fault in place of each CPUID (arch_prctl(2), ARCH_SET_CPUID). The
 * handler here answers with what the processor says, less the bits of these instructions. Threads
 * and forked children inherit the request; a new program gives it up, and makes it anew when it
 * loads this library. Bits are those of Intel's "Architecture Instruction Set Extensions
 * Programming Reference" (319433-058), chapter 1.
 *
 * XGETBV still says that the system keeps the wide registers, and glibc's own functions chose
 * theirs before this library was loaded.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define SET_CPUID 0x1012
#define BIT(n) (1u << (n))

/* Leaf 1, EAX: family, model and stepping of Intel's Alder Lake and AMD's Zen 3. */
#define ALDER_LAKE 0x90672u
#define ZEN_3 0xA20F10u

/* Leaf 7, subleaf 0. F, DQ, IFMA, PF, ER, CD, BW, VL; VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ;
 * 4VNNIW, 4FMAPS, VP2INTERSECT, AMX-BF16, FP16, AMX-TILE, AMX-INT8. */
#define HIDDEN_7_EBX \
  (BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31))
#define HIDDEN_7_ECX (BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14))
#define HIDDEN_7_EDX (BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25))
/* Subleaf 1: BF16, AMX-FP16; AMX-COMPLEX, AVX10. */
#define HIDDEN_71_EAX (BIT(5) | BIT(21))
#define HIDDEN_71_EDX (BIT(8) | BIT(19))
/* Leaf 13, subleaf 0, EAX: the registers of AVX-512 and AMX that the system keeps. */
#define HIDDEN_13_EAX (BIT(5) | BIT(6) | BIT(7) | BIT(17) | BIT(18))
/* Leaves of AMX alone, and of AVX10. */
#define TILES 0x1Du
#define TILE_PRODUCTS 0x1Eu
#define AVX10 0x24u

typedef int (*sigaction_of_libc)(int, const struct sigaction *, struct sigaction *);

/* What the program itself wants to be done about faults that are not ours. */
static struct sigaction theirs;

static int ask_for_faults(int faults) { return (int)syscall(SYS_arch_prctl, SET_CPUID, !faults); }

static uint32_t client_signature(uint32_t signature) {
  uint32_t a, b, c, d;
  __cpuid(0, a, b, c, d);
  if (b == signature_INTEL_ebx) return ALDER_LAKE;
  return b == signature_AMD_ebx ? ZEN_3 : signature;
}

static void answer(greg_t *registers) {
  uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = (uint32_t)registers[REG_RCX];
  uint32_t a, b, c, d;
  ask_for_faults(0);
  __cpuid_count(leaf, subleaf, a, b, c, d);
  if (leaf == 1) a = client_signature(a);
  ask_for_faults(1);
  if (leaf == 7 && subleaf == 0) b &= ~HIDDEN_7_EBX, c &= ~HIDDEN_7_ECX, d &= ~HIDDEN_7_EDX;
  if (leaf == 7 && subleaf == 1) a &= ~HIDDEN_71_EAX, d &= ~HIDDEN_71_EDX;
  if (leaf == 13 && subleaf == 0) a &= ~HIDDEN_13_EAX;
  if (leaf == TILES || leaf == TILE_PRODUCTS || leaf == AVX10) a = b = c = d = 0;
  registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
}

static int libc_sigaction(int number, const struct sigaction *wanted, struct sigaction *former) {
  sigaction_of_libc found = (sigaction_of_libc)dlsym(RTLD_NEXT, "sigaction");
  return found(number, wanted, former);
}

static void on_fault(int number, siginfo_t *told, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  /* A refused instruction, unlike an address that is not there: its code can be read. */
  if (told->si_code == SI_KERNEL) {
    const uint8_t *code = (const uint8_t *)registers[REG_RIP];
    int prefix = (code[0] & 0xF0) == 0x40;
    if (code[prefix] == 0x0F && code[prefix + 1] == 0xA2) {
      answer(registers);
      registers[REG_RIP] += prefix + 2;
      return;
    }
  }
  if (theirs.sa_flags & SA_SIGINFO) {
    theirs.sa_sigaction(number, told, context);
  } else if (theirs.sa_handler != SIG_DFL && theirs.sa_handler != SIG_IGN) {
    theirs.sa_handler(number);
  } else {
    struct sigaction none = {.sa_handler = SIG_DFL};
    libc_sigaction(number, &none, NULL);
  }
}

/* Programs keep their handlers of other faults: ours stays the first that is called. */
int sigaction(int number, const struct sigaction *wanted, struct sigaction *former) {
  if (number != SIGSEGV) return libc_sigaction(number, wanted, former);
  if (former != NULL) *former = theirs;
  if (wanted != NULL) theirs = *wanted;
  return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
  struct sigaction wanted = {.sa_handler = handler, .sa_flags = SA_RESTART}, former;
  return sigaction(number, &wanted, &former) == 0 ? former.sa_handler : SIG_ERR;
}

__attribute__((constructor)) static void begin(void) {
  struct sigaction ours = {.sa_sigaction = on_fault,
                           .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  libc_sigaction(SIGSEGV, &ours, &theirs);
  if (ask_for_faults(1) == 0) return;
  fputs("hide_avx512: Linux does not let CPUID fault on this processor\n", stderr);
  _exit(1);
}
