"""Web Push: alerts for sleeping phones, through the push services of their browsers and operating systems.

The fan-out, which decides who is sent which alert, treats a device like a WebSocket session: the device has a row (an
index) in the fan-out, and its push endpoint takes the place of the socket. A device has at most one request under way,
and the fan-out skips its row until the request ends. So a failed push is handled like a slow client: there is no queue
of retries, and the device is later sent the newest revision of each alert that it lacks.

routes, registering   HTTP: register, change and remove devices
device_manager        the devices of this process, from the store to the fan-out
device_reader, shard_loader, lease_watch   reading one device; loading a shard; what is due for devices at certain times
devices, device_state, device_rows   a device and its state; all devices of this process
scheduler             which device is sent which alert next
queues, service_limits   devices that wait for their host or for a slot; how many requests may run at once
requests, client, http_client   how a push request is made
messages, webpush, encryption   the payload, its encryption by RFC 8291, and the stored form of a device
delivery_lines, delivery_journal   which alerts devices were sent, recorded before and after each request
device_repository, devicestore   where devices are stored
leases, shards        which process is responsible for which devices
addresses, settings   where pushes may go; the options of `geocast push`
"""
