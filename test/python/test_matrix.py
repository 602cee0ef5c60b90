"""python-socketio, by every transport, in everything that it does: the same cases as test/client/matrix.test.mjs has."""

import itertools
import unittest

import socketio

from support import Client, Cluster, Server, eventually

# What JSON can hold, with what tends to be lost on the way.
RICH = {
    'numbers': [0, -17, 0.1, 5e-324, 1.7976931348623157e308, 9007199254740991],
    'words': [None, True, False, '', [], {}],
    'nested': {'a': [1, [2, [3, {'b': None}]]]},
    'text': 'grüße, 漢字, 🙂🏽, "quoted", back\\slash, \u2028, \u0000, \u001e',
}
BYTES = bytes(range(256))
BINARY = {'list': [BYTES, {'deep': b'\x00\xff\x1e'}], 'empty': b'', 'text': 'é'}
# Just below the server's limit of a million bytes, and beyond it.
LONG = 'x' * 900_000
TOO_LONG = 'x' * 1_100_000

rooms = (f'room {number}' for number in itertools.count())


class Cases:
    """What each transport must do, at one server or at any of several. They are shared."""

    # What the client is told, and what it must come to.
    transports = None
    ends_with = None
    place = Server

    @classmethod
    def setUpClass(cls):
        cls.server = cls.place(cls.addClassCleanup)

    def new(self, server=None, **options):
        return Client(self, (server or self.server).url, self.transports, **options)

    def connect(self, *args, server=None, **options):
        client = self.new(server).connect(*args, **options)
        self.assertEqual(client.socket.transport(), self.ends_with)
        return client

    def test_connects_with_what_it_brings(self):
        client = self.connect(auth={'name': 'Ada'})
        self.assertEqual(client.ask('who-am-i'), {'id': client.id(), 'auth': {'name': 'Ada'}})

    def test_connects_to_the_main_namespace(self):
        client = self.connect('/')
        self.assertEqual(client.ask('who-am-i', namespace='/')['id'], client.id('/'))

    def test_a_refusal_comes_with_its_message_and_data(self):
        client = self.new()
        client.keep('connect_error')
        with self.assertRaises(socketio.exceptions.ConnectionError):
            client.connect(auth={'refuse': True})
        error = {'message': 'No entry', 'data': {'code': 'refused', 'wish': True}}
        self.assertEqual(client.came['connect_error'], [(error,)])
        self.assertFalse(client.socket.connected)

    def test_an_unknown_namespace_is_refused(self):
        client = self.new()
        client.keep('connect_error', namespace='/nowhere')
        with self.assertRaises(socketio.exceptions.ConnectionError):
            client.connect('/nowhere')
        self.assertEqual(client.came['connect_error'], [({'message': 'Invalid namespace'},)])

    def test_events_arrive_both_ways(self):
        client = self.new()
        client.keep('echo-event')
        client.connect()
        sent = [(RICH,), ('one', 2, None, [3]), ('',), ()]
        for number, args in enumerate(sent, 1):
            client.emit('echo-event', args)
            self.assertEqual(client.next('echo-event', number), args)

    def test_the_server_acknowledges(self):
        client = self.connect()
        self.assertEqual(client.ask('echo', RICH), RICH)
        self.assertEqual(client.ask('echo', (1, 'two', [3])), (1, 'two', [3]))
        self.assertIsNone(client.ask('echo'))

    def test_the_client_acknowledges(self):
        client = self.new()
        client.socket.on('question', lambda value: {'asked': value}, namespace='/matrix')
        client.connect()
        self.assertEqual(client.ask('ask-me', RICH), {'asked': RICH})

    def test_bytes_arrive_both_ways(self):
        client = self.new()
        client.keep('echo-event')
        client.connect()
        client.emit('echo-event', (BYTES, 'between', BINARY))
        self.assertEqual(client.next('echo-event'), (BYTES, 'between', BINARY))

    def test_bytes_are_acknowledged_with_bytes_both_ways(self):
        client = self.new()
        client.socket.on('question', lambda value: value[::-1], namespace='/matrix')
        client.connect()
        self.assertEqual(client.ask('echo', (BYTES, BINARY)), (BYTES, BINARY))
        self.assertEqual(client.ask('ask-me-binary', BYTES), BYTES[::-1])

    def test_a_900_kb_message_arrives_both_ways(self):
        client = self.new()
        client.keep('echo-event')
        client.connect()
        client.emit('echo-event', LONG)
        self.assertTrue(client.next('echo-event') == (LONG,))
        data = bytes(600_000)
        self.assertTrue(client.ask('echo', data) == data)

    def test_a_message_over_the_limit_ends_this_connection_alone_and_the_client_comes_back(self):
        client, other = self.new(), self.new()
        for one in (client, other):
            one.keep('disconnect', 'connect')
            one.connect()
        client.emit('echo-event', TOO_LONG)
        self.assertEqual(client.next('disconnect'), ('transport error',))
        # Of a close frame (1009 here) this client tells nothing.
        self.assertEqual(client.packets.statuses, [413] if self.ends_with == 'polling' else [])
        client.next('connect', 2)
        eventually(lambda: client.socket.connected, 'the client is back')
        self.assertEqual(client.ask('echo', 'back again'), 'back again')
        self.assertEqual(other.ask('echo', 'unharmed'), 'unharmed')
        self.assertEqual(other.came['disconnect'], [])

    def test_what_is_said_in_a_room_reaches_who_is_in_it(self):
        room = next(rooms)
        speaker, member, former, stranger = clients = [self.new() for _ in range(4)]
        for client in clients:
            client.keep('said')
            client.connect()
        for client in (speaker, member, former):
            client.ask('join', room)
        speaker.ask('say', (room, 'to both'))
        former.next('said')
        former.ask('leave', room)
        speaker.ask('say', (room, 'to one'))
        member.next('said', 2)
        # An answer comes behind whatever was sent before.
        for client in (speaker, former, stranger):
            client.ask('echo')
        heard = [client.came['said'] for client in clients]
        self.assertEqual(heard, [[], [('to both',), ('to one',)], [('to both',)], []])

    def test_two_namespaces_share_a_connection_not_their_ends(self):
        client = self.new()
        client.keep('disconnect')
        client.connect(['/', '/matrix'])
        self.assertNotEqual(client.id('/'), client.id('/matrix'))
        client.emit('kick')
        self.assertEqual(client.next('disconnect'), ('server disconnect',))
        self.assertEqual(client.ask('echo', 'still here', namespace='/'), 'still here')

    def leaves(self, act):
        """Has a client do something, and returns why it left, as others are told."""
        watcher = self.new()
        watcher.keep('left')
        watcher.connect()
        watcher.ask('watch')
        client = self.connect()
        client_id = client.id()
        act(client)

        def reason():
            return [why for who, why in watcher.came['left'] if who == client_id]

        return eventually(reason, 'that the client leaves')

    def test_the_client_leaves_and_may_come_back(self):
        def leave(client):
            client.keep('disconnect')
            client.leave()
            self.assertEqual(client.next('disconnect'), ('client disconnect',))
            self.assertEqual(client.connect().ask('echo', 'back'), 'back')

        # It says so and closes at once; over WebSocket the word may come too late.
        self.assertIn(self.leaves(leave), (['client namespace disconnect'], ['transport close']))

    def test_the_server_ends_the_membership_and_the_client_stays_away(self):
        def kick(client):
            client.keep('disconnect')
            client.emit('kick')
            self.assertEqual(client.next('disconnect'), ('server disconnect',))
            eventually(lambda: client.socket.eio.state == 'disconnected', 'that the client closes')

        self.assertEqual(self.leaves(kick), ['server namespace disconnect'])

    def test_the_server_ends_the_whole_connection_and_the_client_stays_away(self):
        client = self.new()
        client.keep('disconnect')
        client.connect(['/', '/matrix'])
        client.emit('kick-all')
        self.assertEqual(client.next('disconnect'), ('server disconnect',))
        eventually(lambda: client.socket.eio.state == 'disconnected', 'that the client closes')
        self.assertFalse(client.socket.connected)

    def test_stays_connected_from_heartbeat_to_heartbeat(self):
        client = self.connect()
        client_id = client.id()
        eventually(lambda: client.packets.num_pings >= 3, '3 heartbeats')
        self.assertEqual(client.ask('who-am-i')['id'], client_id)


class Restarts:
    """What each transport must do when its server does not stay."""

    def assert_back(self, server, client, former_id):
        """Waits for the client of a server that was started again. It must be as good as new."""
        client.next('connect', 2)
        eventually(lambda: client.socket.connected, 'the client is back')
        self.assertEqual(client.socket.transport(), self.ends_with)
        self.assertNotEqual(client.id(), former_id)
        self.assertEqual(client.ask('echo', (RICH, BYTES)), (RICH, BYTES))
        room = next(rooms)
        client.ask('join', room)
        self.connect(server=server).ask('say', (room, 'welcome back'))
        self.assertEqual(client.next('said'), ('welcome back',))

    def test_comes_back_after_kill_9(self):
        server = Server(self.addCleanup)
        client = self.new(server)
        client.keep('connect', 'disconnect', 'said')
        client.connect()
        former_id = client.id()
        server.kill()
        self.assertEqual(client.next('disconnect'), ('transport error',))
        server.start()
        self.assert_back(server, client, former_id)

    def test_is_told_of_a_stop_and_comes_back_after_it(self):
        server = Server(self.addCleanup)
        client = self.new(server)
        client.keep('connect', 'disconnect', 'said')
        client.connect()
        former_id = client.id()
        self.assertEqual(server.stop(), 0)
        (reason,) = client.next('disconnect')
        server.start()
        if reason == 'server disconnect':
            # A poll is answered with the close packet, as by Node's server. This client takes it for a last word: it is for
            # the application to connect again.
            self.assertEqual(self.ends_with, 'polling')
            eventually(lambda: client.socket.eio.state == 'disconnected', 'that the client closes')
            client.connect()
        else:
            self.assertEqual(reason, 'transport error')
        self.assert_back(server, client, former_id)


class Polling(Cases, Restarts, unittest.TestCase):
    transports = ['polling']
    ends_with = 'polling'


class WebSocket(Cases, Restarts, unittest.TestCase):
    transports = ['websocket']
    ends_with = 'websocket'


class Upgrade(Cases, Restarts, unittest.TestCase):
    ends_with = 'websocket'


class PollingAnywhere(Cases, unittest.TestCase):
    place = Cluster
    transports = ['polling']
    ends_with = 'polling'


class WebSocketAnywhere(Cases, unittest.TestCase):
    place = Cluster
    transports = ['websocket']
    ends_with = 'websocket'


class UpgradeAnywhere(Cases, unittest.TestCase):
    place = Cluster
    ends_with = 'websocket'


if __name__ == '__main__':
    unittest.main()
