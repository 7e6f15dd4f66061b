"""The async twin of a database elsewhere: that of an embedded one, over the methods of this one."""

from __future__ import annotations

from gingham.aio import TWINS
from gingham.clients.collection import RemoteCollection
from gingham.clients.remote import RemoteDatabase
from gingham.clients.snapshot import RemoteSnapshot
from gingham.clients.transaction import RemoteTransaction, RemoteTransactionCollection
from gingham.clients.view import RemoteCollectionView
from gingham.collection import Collection
from gingham.database import Database, Snapshot
from gingham.transaction import Transaction, TransactionCollection
from gingham.view import CollectionView

TWINS[RemoteDatabase] = TWINS[Database]
TWINS[RemoteCollection] = TWINS[Collection]
TWINS[RemoteCollectionView] = TWINS[CollectionView]
TWINS[RemoteSnapshot] = TWINS[Snapshot]
TWINS[RemoteTransaction] = TWINS[Transaction]
TWINS[RemoteTransactionCollection] = TWINS[TransactionCollection]
