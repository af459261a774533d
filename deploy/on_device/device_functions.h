/* What a client can call on this device beside TVM's own functions. */
#ifndef SHUFFLEDEPLOY_DEVICE_FUNCTIONS_H
#define SHUFFLEDEPLOY_DEVICE_FUNCTIONS_H

#include <stdbool.h>

#include "device_description.h"

/* Make the functions callable.  Returns false, having said why, if TVM's runtime refuses. */
bool register_functions(struct device *device);

/* Serve one client until it leaves.  Returns false, having said why, if the session broke. */
bool serve_client(int socket);

/* Raise an error in a client whose session has ended. */
void tell_client(int socket, const char *text);

#endif
