/* Host names for the push services of the abuse campaign. Names under push.test that begin with "up" resolve to this
 * machine, and others under push.test do not exist. The system resolves all names outside push.test. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>

typedef int Resolve(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static Resolve *next;
    const char zone[] = ".push.test";
    size_t length = name ? strlen(name) : 0;
    if (!next) next = (Resolve *)dlsym(RTLD_NEXT, "getaddrinfo");
    if (length >= sizeof zone && !strcmp(name + length - (sizeof zone - 1), zone)) {
        if (strncmp(name, "up", 2)) return EAI_NONAME;
        name = "127.0.0.1";
    }
    return next(name, service, hints, found);
}
