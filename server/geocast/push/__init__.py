"""Web Push: alerts for phones that sleep, by the push services of their browsers and systems.

A device is a row of the fan-out, as a session is, and its push endpoint is its transport. One request is under way for
a device at a time, and its row is paused meanwhile. So a push that fails is like a slow client: the device is sent the
newest of what it is owed, and there is no queue of retries.

routes, registering   HTTP: a device is registered, changed and removed
device_manager        the devices of this process, from the store to the fan-out
device_state, devices  a device, and what it does now
scheduler             which device is sent something next
client, http_client, http1   how a push request is made
messages, webpush, encryption   what is sent: the payload, RFC 8291, the stored form
service_limits        how fast each push service is asked
delivery_journal      what a device was sent, written down before and after
device_repository, devicestore   where devices are kept
leases, shards        which process has which devices
addresses, settings   where a push may go; the options of `geocast push`
"""
