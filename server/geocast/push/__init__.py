"""Web Push: alerts for sleeping phones, through the push services of their browsers and operating systems.

A device is a row of the fan-out, as a WebSocket session is, and its push endpoint is its transport. A device has one
request under way at a time, and its row is paused meanwhile. So a failed push is like a slow client: the device is sent
the newest revision of each alert that it is owed, and there is no queue of retries.

routes, registering   HTTP: register, change and remove devices
device_manager        the devices of this process, from the store to the fan-out
device_state, devices  a device and its state
scheduler             which device is sent which alert next
client, http_client, http1   how a push request is made
messages, webpush, encryption   the payload, its encryption by RFC 8291, and the stored form of a device
service_limits        how many requests each push service gets
delivery_journal      what devices were sent, recorded before and after each request
device_repository, devicestore   where devices are stored
leases, shards        which process has which devices
addresses, settings   where pushes may go; the options of `geocast push`
"""
