/* The first process of a pod: it lives as long as the pod does, ends when asked
 * to, and takes leave of the orphans that it inherits when containers share its
 * process namespace. */
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

int main(void) {
    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    sigaddset(&awaited, SIGINT);
    sigaddset(&awaited, SIGTERM);
    /* Blocked signals wait for sigwait, so none is missed and no handler is needed. */
    sigprocmask(SIG_BLOCK, &awaited, NULL);
    for (;;) {
        int received;
        if (sigwait(&awaited, &received) != 0)
            continue;
        if (received != SIGCHLD)
            return 0;
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
    }
}
